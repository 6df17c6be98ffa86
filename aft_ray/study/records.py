"""A setting's record: its findings in one text file, a line for each training, which outlives the setting's workspace.

A method that is searched later joins the methods of before, so a study that compares one method more runs this method alone. A
method whose part of the recipe has changed is searched again and takes the place of its earlier findings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.config import Recipe, fingerprint, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.json_files import sealed
from aft_ray.search.trials import COLUMNS, TrialRow
from aft_ray.store.files import Directory

SCORES = ("trial", "val_accuracy", "val_loss", "test_accuracy", "test_loss", "step")
WAY_OUT = "Restore it from a copy, or delete it and run 'aft-ray study' again."


class Probe(TypedDict):
    """A linear head on the features of a set of teachers: validation accuracy with all labels of train, and with the labels
    that training has."""

    teachers: list[str]
    val_accuracy: float
    with_own_labels: NotRequired[float]


class Told(TypedDict):
    """What the features of one teacher tell of the labels that training has, as `rank` shows it: `search.knowledge.Knowledge`.
    alignment: missing where there are too few rows."""

    teacher: str
    r2: float
    least_r2: float
    alignment: NotRequired[float]


class MethodRun(TypedDict):
    """When and with what code a method was searched. recipe: its part of the recipe, hashed. repeats: the date of an earlier
    search with the same scores."""

    method: str
    recipe: str
    date: str
    code: str
    repeats: NotRequired[str]


@with_config(ConfigDict(extra="allow"))
class _Row(TypedDict):
    trial: str
    stage: str
    teachers: list[str]
    status: str


class _File(TypedDict):
    runs: list[MethodRun]
    machine: str
    samples: dict[str, Annotated[int, Field(ge=0)]]
    step_ms: dict[str, float]
    probes: list[Probe]
    told: NotRequired[list[Told]]
    rows: list[_Row]


@dataclass(frozen=True)
class Record:
    """runs: of each finished method. machine: on which they ran, several with semicolons between. samples: in each split, and
    `labels` that training has. step_ms: milliseconds of a step in each method's final runs, median, all on one machine. rows: of
    the search's trials. told: by each teacher; older records lack it."""

    runs: Sequence[MethodRun] = ()
    machine: str = ""
    samples: dict[str, int] | None = None
    step_ms: dict[str, float] | None = None
    probes: Sequence[Probe] = ()
    rows: Sequence[TrialRow] = ()
    told: Sequence[Told] = ()

    def of(self, method: str) -> list[MethodRun]:
        return [run for run in self.runs if run["method"] == method]

    def missing(self, recipe: Recipe) -> list[str]:
        """Methods that the recipe compares and that are not finished with this very recipe."""
        return [method for method in recipe.search.methods(recipe.regularizer.name) if not self._has(recipe, method)]

    def rest(self, recipe: Recipe) -> Recipe:
        """The recipe that compares the missing methods alone; there must be one."""
        return override(recipe, {"search.compare": self.missing(recipe)})

    def outdated(self, recipe: Recipe) -> list[str]:
        """Methods that the recipe does not compare and that are finished with another recipe alone."""
        compared = recipe.search.methods(recipe.regularizer.name)
        methods = dict.fromkeys(run["method"] for run in self.runs)
        return [method for method in methods if method not in compared and not self._has(recipe, method)]

    def _has(self, recipe: Recipe, method: str) -> bool:
        return any(run["recipe"] == identity(recipe, method) for run in self.of(method))


def identity(recipe: Recipe, method: str) -> str:
    """The recipe as `method` sees it, hashed. A workspace may be moved, a cluster may be another, other methods may come."""
    recipe = override(recipe, {"train.warmup_steps": recipe.train.num_warmup_steps})  # as presets of before wrote it
    content = recipe.model_dump(mode="json", exclude={"workspace", "resources", "run"}, exclude_defaults=True)
    search = content.setdefault("search", {})
    betas, keys = search.get("beta", {}), search.get("per_method", {})
    search |= {"compare": [method], "beta": betas.get(method, betas.get("all")), "per_method": keys.get(method, {})}
    return fingerprint(content)


def check_samples(record: Record, recipe: Recipe, samples: Mapping[str, int], file: str) -> None:
    """Raises InputError if the record has findings with this very recipe on other samples than these. file: where it is."""
    found = [run["method"] for run in record.runs if run["recipe"] == identity(recipe, run["method"])]
    if found and record.samples != samples:
        of_before = record.samples or {}
        differing = [f"{key} {of_before.get(key)}, now {n}" for key, n in samples.items() if of_before.get(key) != n]
        raise InputError(
            f"{file} has {', '.join(found)} on other samples ({'; '.join(differing)}), which cannot be compared with a method"
            " that is searched now. Restore the raw data, or move this file away to search all methods again."
        )


def read_record(place: Directory, name: str) -> Record:
    """The record of the setting `name`; an empty one if nothing is there. Raises InputError if it is damaged."""
    if not place.has(f"{name}.json"):
        return Record()
    found: dict[str, Any] = place.read_json(f"{name}.json", _File, WAY_OUT)
    return Record(**{**found, "rows": [{**dict.fromkeys(COLUMNS), **row} for row in found["rows"]]})


def write_record(place: Directory, name: str, record: Record) -> None:
    """One training a line, so that two runs can be compared with a tool for texts."""
    facts = {key: value for key, value in vars(record).items() if key != "rows"}
    head = json.dumps(facts, indent=1).removesuffix("\n}")
    lines = [json.dumps({key: value for key, value in row.items() if value is not None}) for row in record.rows]
    rows = "[\n  " + ",\n  ".join(lines) + "\n ]" if lines else "[]"
    place.write(f"{name}.json", sealed(f'{head},\n "rows": {rows}\n}}\n'))


def joined(before: Record, now: Record) -> Record:
    """The methods of `now`, and beside them the other ones of `before`, if both read the same samples."""
    if before.samples != now.samples:
        return now
    methods = {run["method"] for run in now.runs}
    kept = [run for run in before.runs if run["method"] not in methods]
    machines = [*before.machine.split("; "), now.machine] if kept else [now.machine]
    probes = {tuple(probe["teachers"]): probe for probe in (*before.probes, *now.probes)}
    told = {one["teacher"]: one for one in (*before.told, *now.told)}
    return replace(
        now,
        runs=[*kept, *(_noted(run, before, now) for run in now.runs)],
        machine="; ".join(dict.fromkeys(machines)),
        step_ms=_step_ms(before, now),
        probes=list(probes.values()),
        told=list(told.values()),
        rows=[*(row for row in before.rows if row["regularizer.name"] not in methods), *now.rows],
    )


def _step_ms(before: Record, now: Record) -> dict[str, float]:
    """Times of one machine alone, so that they can be compared. A method keeps its first time until its recipe changes."""
    recipes = {run["method"]: run["recipe"] for run in (*before.runs, *now.runs)}
    same = {run["method"] for run in before.runs if run["recipe"] == recipes[run["method"]]}
    known = {method: ms for method, ms in (before.step_ms or {}).items() if method in same}
    return {**(now.step_ms or {}), **known} if before.machine == now.machine or not known else known


def _noted(run: MethodRun, before: Record, now: Record) -> MethodRun:
    """The run, with the date of the earlier one where it gave the same scores."""
    earlier, method = before.of(run["method"]), run["method"]
    if not earlier or _scores(before, method) != _scores(now, method):
        return run
    return {**run, "repeats": earlier[0]["date"]}


def _scores(record: Record, method: str) -> list[str]:
    rows = [row for row in record.rows if row["regularizer.name"] == method]
    return sorted(json.dumps([row.get(key) for key in SCORES]) for row in rows)
