"""What a finished search has left behind, as the page of results needs it."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aft_ray.config import Recipe
from aft_ray.report import read_trainings, read_trials
from aft_ray.results import METHODS, Entry, Row, summarize
from aft_ray.shards import Directory
from aft_ray.store import Workspace

MADE = "made.json"
"""Beside `trials.parquet`: when and on what the search was run, what its teachers know, how many labels there are."""


@dataclass(frozen=True)
class Found:
    """A finished search. rows: its trials. made: what `MADE` holds. step_ms: of a step of each method's final runs."""

    recipe: Recipe
    rows: Sequence[Row]
    made: Mapping[str, Any]
    step_ms: Mapping[str, float]

    @property
    def entries(self) -> dict[str, Entry]:
        """The chosen setting of every method, in the order of METHODS."""
        found = {entry.method: entry for entry in summarize(self.rows)}
        return {method: found[method] for method in METHODS if method in found}

    def finals(self, method: str) -> list[Row]:
        return [row for row in self.rows if row["stage"] == "final" and row["regularizer.name"] == method]


def place_of(recipe: Recipe) -> Directory:
    return Workspace.at(recipe.workspace).search(recipe.run)


def is_finished(recipe: Recipe, rows: Sequence[Row]) -> bool:
    """Whether every method has all its final runs."""
    finals = [row for row in rows if row["stage"] == "final" and row["test_accuracy"] is not None]
    return len(finals) == len(recipe.search.methods(recipe.regularizer.name)) * recipe.search.final.seeds


def read(recipe: Recipe) -> Found | None:
    """None if the search has not come to its end."""
    place = place_of(recipe)
    rows = read_trials(place)
    if not is_finished(recipe, rows) or not place.has(MADE):
        return None
    methods = {row["trial"]: row["regularizer.name"] for row in rows if row["stage"] == "final"}
    times: dict[str, list[float]] = defaultdict(list)
    for training in read_trainings(place / "trials", methods):
        speed = statistics.median(line["samples_per_s"] for line in training.history[1:])
        times[methods[training.name]].append(1000 * recipe.train.global_batch_size / speed)
    step_ms = {method: statistics.median(found) for method, found in times.items()}
    return Found(recipe, rows, json.loads(place.read(MADE)), step_ms)
