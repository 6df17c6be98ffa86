"""What a finished search has left behind, as the page of results needs it."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
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

    @property
    def missing(self) -> list[str]:
        """Methods that the recipe compares and that are not finished."""
        return [method for method in self.recipe.search.methods("none") if method not in self.entries]

    def finals(self, method: str) -> list[Row]:
        return [row for row in self.rows if row["stage"] == "final" and row["regularizer.name"] == method]


def place_of(recipe: Recipe) -> Directory:
    return Workspace.at(recipe.workspace).search(recipe.run)


def finished_methods(recipe: Recipe, rows: Sequence[Row]) -> list[str]:
    """Those that have all their final runs, and no trial under way."""
    finals = Counter(row["regularizer.name"] for row in rows if row["test_accuracy"] is not None)
    open_ones = {row["regularizer.name"] for row in rows if row["status"] == "running"}
    wanted = recipe.search.methods(recipe.regularizer.name)
    return [method for method in wanted if finals[method] == recipe.search.final.seeds and method not in open_ones]


def is_finished(recipe: Recipe) -> bool:
    methods, place = recipe.search.methods(recipe.regularizer.name), place_of(recipe)
    return place.has(MADE) and len(finished_methods(recipe, read_trials(place))) == len(methods)


def read(recipe: Recipe) -> Found | None:
    """The methods that are finished; None if the search has never come to its end."""
    place = place_of(recipe)
    if not place.has(MADE):
        return None
    rows = read_trials(place)
    methods = finished_methods(recipe, rows)
    rows = [row for row in rows if row["regularizer.name"] in methods]
    trials = {row["trial"]: row["regularizer.name"] for row in rows if row["stage"] == "final"}
    times: dict[str, list[float]] = defaultdict(list)
    for training in read_trainings(place / "trials", trials):
        speed = statistics.median(line["samples_per_s"] for line in training.history[1:])
        times[trials[training.name]].append(1000 * recipe.train.global_batch_size / speed)
    step_ms = {method: statistics.median(found) for method, found in times.items()}
    return Found(recipe, rows, json.loads(place.read(MADE)), step_ms)
