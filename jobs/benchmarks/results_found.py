"""What a finished search has left behind, as the page of results needs it, and as it is kept beside the page."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aft_ray.recipe.config import Recipe
from aft_ray.report.reading import read_trainings, read_trials
from aft_ray.report.results import METHODS, Entry, TrialRow, summarize
from aft_ray.search.trials import COLUMNS
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace

MADE = "made.json"
"""Beside `trials.parquet`: when and on what the search was run, what its teachers know, how many labels there are."""


@dataclass(frozen=True)
class Found:
    """A finished search.

    methods: that its recipe compares. made: what `MADE` holds; `runs` in it says of each method when and with what code it was
    run. step_ms: of a step of each method's final runs. rows: its trials, without what is null.
    """

    data: str
    student: str
    methods: Sequence[str]
    made: Mapping[str, Any]
    step_ms: Mapping[str, float]
    rows: Sequence[TrialRow]

    @property
    def entries(self) -> dict[str, Entry]:
        """The chosen setting of every method, in the order of METHODS."""
        found = {entry.method: entry for entry in summarize(self.rows)}
        return {method: found[method] for method in METHODS if method in found}

    @property
    def missing(self) -> list[str]:
        """Methods that the recipe compares and that are not finished."""
        return [method for method in self.methods if method not in self.entries]

    def run(self, method: str) -> Mapping[str, str]:
        """`date` and `code` (a commit) of the method's trainings; `repeats`, the date of earlier ones that they equal."""
        found: Mapping[str, str] = self.made.get("runs", {}).get(method, {"date": self.made["date"]})
        return found

    def finals(self, method: str) -> list[TrialRow]:
        return [row for row in self.rows if row["stage"] == "final" and row["regularizer.name"] == method]


def mean_relative_error(searches: Iterable[Found], method: str) -> tuple[float, float]:
    """Over the searches that have the method, and the standard error that their seeds give it."""
    entries = [search.entries[method] for search in searches if method in search.entries]
    mean = statistics.fmean(entry.relative_error for entry in entries)
    return mean, math.hypot(*(entry.relative_error_se for entry in entries)) / len(entries)


def place_of(recipe: Recipe) -> Directory:
    return Workspace.at(recipe.workspace).search(recipe.run)


def finished_methods(recipe: Recipe, rows: Sequence[TrialRow]) -> list[str]:
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
    student = f"{recipe.student.model.rpartition('/')[2]}{', pretrained' * recipe.student.pretrained}"
    made = json.loads(place.read(MADE))
    methods = [*recipe.search.methods(recipe.regularizer.name)]
    data = recipe.dataset.name or Path(str(recipe.dataset.path)).stem
    return Found(data, student, methods, made, step_ms, rows)


# ---- records ----------------------------------------------------------------------------------------------------------


def record_of(recipe: Recipe, page: Path) -> Path:
    """Where a search is kept beside the page: `results/digits/digits-5.json` for docs/results.md."""
    return page.with_suffix("") / Path(recipe.workspace).name / f"{recipe.run}.json"


def write_record(found: Found, path: Path) -> None:
    """One trial a line, so that two runs can be compared with `git diff`."""
    facts = {key: value for key, value in asdict(found).items() if key != "rows"}
    lines = [json.dumps({key: value for key, value in row.items() if value is not None}) for row in found.rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps(facts, indent=1).removesuffix("\n}")
    path.write_text(head + ',\n "rows": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n", encoding="utf-8")


SAMPLES = ("train", "validation", "test", "labels")
SCORES = ("trial", "val_accuracy", "test_accuracy", "step")


def joined(before: Found | None, now: Found) -> Found:
    """The methods of `now`, and beside them those of `before` if both are of the same samples and student.

    Times of steps are not comparable between machines that were busy with other things: those of before stay alone.
    """
    comparable = before is not None and before.student == now.student
    if before is None or not comparable or any(before.made.get(key) != now.made.get(key) for key in SAMPLES):
        return now
    runs = {method: before.run(method) for method in before.entries}
    for method in now.entries:
        if method not in runs or runs[method]["date"] != now.run(method)["date"]:
            is_same = method in runs and _scores(before, method) == _scores(now, method)
            runs[method] = {**now.run(method), **({"repeats": runs[method]["date"]} if is_same else {})}
    rows = [row for row in before.rows if row["regularizer.name"] not in now.entries]
    made = {**before.made, **{key: value for key, value in now.made.items() if key not in before.made}, "runs": runs}
    return Found(now.data, now.student, now.methods, made, before.step_ms, [*rows, *now.rows])


def _scores(found: Found, method: str) -> list[list[Any]]:
    return sorted([row[key] for key in SCORES] for row in found.rows if row["regularizer.name"] == method)


def read_record(path: Path) -> Found | None:
    """What `write_record` wrote; None if nothing is there."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Found(**{**found, "rows": [{**dict.fromkeys(COLUMNS), **row} for row in found["rows"]]})


def collect(claims: Mapping[str, Mapping[str, Recipe]], page: Path) -> dict[str, dict[str, Found | None]]:
    """Every search as its record has it. Methods that the workspace holds finished replace those of the record."""
    records: dict[Path, Found | None] = {}
    for recipe in (recipe for searches in claims.values() for recipe in searches.values()):
        path = record_of(recipe, page)
        if path not in records:
            if found := read(recipe):
                write_record(joined(read_record(path), found), path)
            known = read_record(path)  # maybe of a day when the recipe compared fewer methods
            methods = [*recipe.search.methods(recipe.regularizer.name)]
            records[path] = replace(known, methods=methods) if known else None
    return {c: {name: records[record_of(r, page)] for name, r in searches.items()} for c, searches in claims.items()}
