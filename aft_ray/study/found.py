"""The findings of a study: what the searches of its settings have left behind, read back, finished or not.

A setting that has come to its end leaves a record beside its trials: the recipe that it was run with, and how much its
teachers know by themselves. A study that is started again leaves such settings alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import TypedDict

from aft_ray.recipe.config import Recipe, fingerprint, override
from aft_ray.report.reading import read_trials
from aft_ray.report.results import Entry, TrialRow, summarize
from aft_ray.search.rank import can_rank, ranking_of
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.study.config import Study
from aft_ray.training.best import Measure, measure_of
from aft_ray.training.inputs.stores import Setup, open_setup

RECORD = "setting.json"
"""Beside a setting's `trials.parquet`; written last."""


class Probe(TypedDict):
    teachers: list[str]
    val_accuracy: float


class Record(TypedDict):
    recipe: str
    probes: list[Probe]


@dataclass(frozen=True)
class Found:
    """A setting's findings. entries: its settings with final runs, and methods without. rows: of its trials.
    probes: validation accuracy of a linear head on the features of each set of teachers, with all labels."""

    name: str
    is_finished: bool
    entries: Sequence[Entry]
    rows: Sequence[TrialRow]
    probes: Mapping[tuple[str, ...], float]

    @property
    def chosen(self) -> dict[str, Entry]:
        """Each method at the setting that validation chose, where it has final runs."""
        return {entry.method: entry for entry in self.entries if entry.is_chosen and entry.finals}

    @property
    def measure(self) -> Measure:
        return measure_of(self.rows)

    def by_teachers(self, method: str) -> dict[tuple[str, ...], Entry]:
        """The method's final runs with each set of teachers, at the setting that validation chose for the set."""
        own = [entry for entry in self.entries if entry.method == method and entry.finals]
        own.sort(key=lambda entry: -entry.measure.error_of(entry.validation))
        return {entry.teachers: entry for entry in own}


def read_study(study: Study) -> list[Found]:
    """The findings of every setting so far."""
    return [_read(name, recipe) for name, recipe in study.settings.items()]


def is_finished(recipe: Recipe) -> bool:
    """Whether the setting has come to its end with this very recipe."""
    return _record(place_of(recipe)).get("recipe") == _identity(recipe)


def write_record(setup: Setup, rows: Sequence[TrialRow]) -> None:
    """Notes that the setting is finished. rows: of its search."""
    recipe = setup.recipe
    sets = list(dict.fromkeys(tuple(row["teachers"]) for row in rows if row["teachers"]))
    record: Record = {
        "recipe": _identity(recipe),
        "probes": list(_probes(recipe, sets)) if sets and can_rank(setup) else [],
    }
    place_of(recipe).write_json(RECORD, record)


def place_of(recipe: Recipe) -> Directory:
    return Workspace.at(recipe.workspace).search(recipe.run)


def _read(name: str, recipe: Recipe) -> Found:
    place = place_of(recipe)
    rows, record = read_trials(place), _record(place)
    probes = {tuple(probe["teachers"]): probe["val_accuracy"] for probe in record.get("probes", [])}
    return Found(name, is_finished(recipe), summarize(rows, recipe.search.metric), rows, probes)


def _record(place: Directory) -> dict[str, Any]:
    if not place.has(RECORD):
        return {}
    return place.read_json(RECORD, Record, f"Delete {place}/{RECORD} and run 'aft-ray study' again.")


def _identity(recipe: Recipe) -> str:
    """A workspace may be moved, a cluster may be another."""
    return fingerprint(recipe.model_dump(mode="json", exclude={"workspace", "resources"}, exclude_defaults=True))


def _probes(recipe: Recipe, sets: Sequence[tuple[str, ...]]) -> Iterator[Probe]:
    """How well a linear head on each set of teachers tells the classes of validation apart."""
    used = [teacher.model_dump(mode="json") for teacher in recipe.teachers if any(teacher.name in one for one in sets)]
    changes = {"teachers": used, "search.teachers": sets, "train.labels_per_class": None}
    ranked = override(recipe, changes)
    for row in ranking_of(open_setup(ranked, ranked.teacher_names())).rows:
        yield {"teachers": row["teachers"], "val_accuracy": row["val_accuracy"]}
