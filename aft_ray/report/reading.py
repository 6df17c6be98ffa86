"""Reads the searches, runs and rankings of a workspace, and checks them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from aft_ray.export.run_files import Form, Method, Teacher, damaged, read_checked
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.json_files import checked_json
from aft_ray.recipe.search_section import Betas
from aft_ray.report.results import Entry, Training, TrialRow, summarize
from aft_ray.report.words import headline, left_out, remarks, winner_in_words
from aft_ray.search.best import best_settings, winner
from aft_ray.search.space import strengths
from aft_ray.search.teacher_heads import TeacherHead, read_heads
from aft_ray.search.trials import read_table, run_at
from aft_ray.store.files import Directory
from aft_ray.store.manifest import num_labelled
from aft_ray.store.workspace import Workspace
from aft_ray.training.runs import CONFIG, RunDirectory

MOVE_AWAY = "Restore it from a copy, or move its directory out of the workspace."


class _Named(Form):
    name: str


class _Seeded(Form):
    seed: int
    steps: int
    global_batch_size: int
    labels_per_class: int | None = None


class _Student(Form):
    model: str
    pretrained: bool
    weights: str | None


class _Recipe(Form):
    """The keys of a run's `config.yaml` that the page shows."""

    regularizer: Method
    teachers: list[_Named]
    train: _Seeded
    student: _Student


class _Trained(Form):
    """The keys of `student.json` that the page shows."""

    teachers: list[Teacher]
    sha256: dict[str, str] = {}
    closeness: dict[str, float | None] = {}


class _Ranked(Form):
    teachers: list[str]
    val_accuracy: float


class _Ranking(Form):
    rows: list[_Ranked]


@dataclass(frozen=True)
class Findings:
    """The findings of a search. entries: its settings with final runs, the lowest test error first. headline, remarks:
    sentences on each method's chosen setting. heads: the teachers' own, on test."""

    entries: list[Entry]
    headline: str
    remarks: list[str]
    heads: list[TeacherHead]

    @property
    def chosen(self) -> list[Entry]:
        """Each method at the setting that validation chose."""
        return [entry for entry in self.entries if entry.is_chosen]

    def relative_error(self, head: TeacherHead) -> float:
        """The head's test error over the mean one of standard transfer; NaN without it."""
        standard = next((entry for entry in self.chosen if entry.method == "none"), None)
        return (1 - head.test_accuracy) / standard.test_error if standard and standard.test_error else math.nan


def findings(recipe: Recipe) -> Findings:
    """The findings of the recipe's search so far."""
    workspace = Workspace.at(recipe.workspace)
    trials = read_trials(workspace.search(recipe.run))
    entries = summarize(trials, recipe.search.metric)
    validation = workspace.samples("validation").manifest()
    place = workspace.search(recipe.run) / "trials"
    chosen = [entry for entry in entries if entry.is_chosen]
    told = [left_out(entry.title, [_last_line(place / name) for name in entry.trials]) for entry in chosen]
    num_validation = num_labelled(validation) if validation else None
    if best := best_settings(trials, recipe.search.metric, num_validation):
        told.insert(0, winner_in_words(chosen, winner(best).method))
    found = remarks(trials, chosen, partial(_strengths, recipe), validation)
    heads = read_heads(workspace.search(recipe.run))
    return Findings(entries, headline(chosen), [*filter(None, told), *found], heads)


def _strengths(recipe: Recipe, method: str) -> Betas:
    """The betas that the search was to try; none for a class of the user's own that is not at hand."""
    try:
        return strengths(recipe, method)
    except ValueError:
        return ()


def _last_line(trial: Directory) -> dict[str, Any]:
    history = run_at(trial).history()
    return history[-1] if history else {}


def read_trials(search: Directory) -> list[TrialRow]:
    """The rows of `trials.parquet`; empty if the search has not written it. Raises InputError if it is damaged."""
    return read_table(search)


def read_trainings(place: Directory, names: Iterable[str]) -> list[Training]:
    """The runs or trials `names` in `place` that have evaluated at least once.

    Raises InputError for the first with damaged files.
    """
    trainings = []
    for name in names:
        run = run_at(place / name)
        if history := run.history():
            found = _read_student(run.place / "student", run.run_id)
            trainings.append(Training(name, _read_recipe(run), history, *found))
    return trainings


def _read_recipe(run: RunDirectory) -> dict[str, Any]:
    recipe = run.config()
    checked_json(json.dumps(recipe, default=str).encode(), _Recipe, f"{run.place}/{CONFIG}", MOVE_AWAY)
    return recipe


def _read_student(student: Directory, owner: str | None) -> tuple[dict[str, np.ndarray], dict[str, float | None]]:
    """Each teacher's gates, and how near the student came; both empty for a training that has not ended."""
    if not student.has("student.json"):
        return {}, {}
    facts = read_checked(student, "student.json", _Trained, MOVE_AWAY, owner)
    return _read_gates(student, facts), facts.get("closeness", {})


def _read_gates(student: Directory, facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Empty for a method without gates."""
    teachers, name = facts["teachers"], "regularizer.safetensors"
    try:
        content = student.read(name)
        tensors = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, OSError) as error:
        raise damaged(student, name, str(error), MOVE_AWAY) from error
    recorded = facts.get("sha256", {}).get(name)
    if recorded not in (None, hashlib.sha256(content).hexdigest()):
        raise damaged(student, name, "its checksum is not the one in student.json", MOVE_AWAY)
    if "gate_logits" not in tensors:
        return {}
    ends = np.cumsum([teacher["feature_dim"] for teacher in teachers])
    if tensors["gate_logits"].shape != (ends[-1] if teachers else 0,):
        raise damaged(student, name, "its gates do not fit the teachers in student.json", MOVE_AWAY)
    gates = 1 / (1 + np.exp(-tensors["gate_logits"].astype(np.float64)))
    return dict(zip((teacher["name"] for teacher in teachers), np.split(gates, ends[:-1]), strict=True))


def read_probes(workspace: Workspace) -> dict[tuple[str, ...], float]:
    """Validation accuracy of a linear probe on each combination of teachers that `rank` has seen."""
    if not workspace.has("rank.json"):
        return {}
    rows = read_checked(workspace, "rank.json", _Ranking, "Delete it and run 'aft-ray rank' again.")["rows"]
    return {tuple(row["teachers"]): row["val_accuracy"] for row in rows}
