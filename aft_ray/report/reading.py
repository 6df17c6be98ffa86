"""What a workspace holds of searches and runs, as the report needs it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy
import yaml

from aft_ray.recipe.config import Recipe
from aft_ray.report.results import Entry, Training, TrialRow, summarize
from aft_ray.report.words import headline, remarks
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.training.runs import RunDirectory


@dataclass(frozen=True)
class Findings:
    """What a search found. entries: its methods, the lowest test error first. headline, remarks: sentences."""

    entries: list[Entry]
    headline: str
    remarks: list[str]


def findings(recipe: Recipe) -> Findings:
    """The findings of the recipe's search so far."""
    workspace = Workspace.at(recipe.workspace)
    trials = read_trials(workspace.search(recipe.run))
    entries = summarize(trials, recipe.search.metric)
    validation = workspace.samples("validation").manifest()
    return Findings(entries, headline(entries), remarks(trials, entries, recipe.search.betas, validation))


def read_trials(search: Directory) -> list[TrialRow]:
    """The rows of `trials.parquet`; empty if the search has not written it."""
    return pq.read_table(io.BytesIO(search.read("trials.parquet"))).to_pylist() if search.has("trials.parquet") else []


def read_trainings(place: Directory, names: Iterable[str]) -> list[Training]:
    """What the runs or trials `names` left in `place`, without those that never evaluated."""
    trainings = []
    for name in names:
        directory = place / name
        if (history := RunDirectory(directory).history()) and "val_accuracy" in history[0]:
            recipe = yaml.safe_load(directory.read("config.yaml"))
            trainings.append(Training(name, recipe, history, _read_gates(directory / "student")))
    return trainings


def _read_gates(student: Directory) -> dict[str, np.ndarray]:
    """Each teacher's gates; empty for a training without gates, or one that has not ended."""
    if not student.has("student.json"):
        return {}
    teachers = json.loads(student.read("student.json"))["teachers"]
    tensors = safetensors.numpy.load(student.read("regularizer.safetensors"))
    if "gate_logits" not in tensors:
        return {}
    gates = 1 / (1 + np.exp(-tensors["gate_logits"].astype(np.float64)))
    ends = np.cumsum([teacher["feature_dim"] for teacher in teachers])
    return dict(zip((teacher["name"] for teacher in teachers), np.split(gates, ends[:-1]), strict=True))
