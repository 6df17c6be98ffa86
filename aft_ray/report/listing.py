"""The runs and searches of a workspace with scores and dates, and two runs side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aft_ray.recipe.errors import InputError
from aft_ray.report.reading import read_trials
from aft_ray.report.results import method_title
from aft_ray.search.search import read_winner
from aft_ray.search.trials import is_search, run_at
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.training.best import ACCURACY, Measure, best_line, measure_of
from aft_ray.training.runs import CONFIG, RunDirectory
from aft_ray.training.verification import is_run

COMPARED = ("dataset", "teachers", "student", "regularizer", "train")
"""Sections of a recipe in which two runs may differ."""


@dataclass(frozen=True)
class RunFacts:
    """A run in a line. fault: why its files cannot be read; nothing else is known then. test: None before the end."""

    name: str
    date: datetime | None
    method: str = ""
    beta: float | None = None
    step: int = 0
    steps: int = 0
    is_finished: bool = False
    measure: Measure = ACCURACY
    validation: float | None = None
    test: float | None = None
    fault: str | None = None


@dataclass(frozen=True)
class SearchFacts:
    """A search in a line. statuses: how many trials and final runs have each status. best: the winner's run, once known."""

    name: str
    date: datetime | None
    statuses: Mapping[str, int]
    measure: Measure = ACCURACY
    validation: float | None = None
    best: str | None = None
    fault: str | None = None


def list_runs(workspace: Workspace) -> list[RunFacts]:
    """The runs of `train`, the newest first."""
    place = workspace / "runs"
    names = [name for name in place.folders() if is_run(RunDirectory(place / name))]
    return _newest_first([_run_facts(place / name, name) for name in names])


def list_searches(workspace: Workspace) -> list[SearchFacts]:
    """The searches, the newest first."""
    place = workspace / "searches"
    return _newest_first([_search_facts(place / name, name) for name in place.folders() if is_search(place / name)])


def _newest_first(found: list[Any]) -> list[Any]:
    return sorted(found, key=lambda facts: facts.date.timestamp() if facts.date else 0.0, reverse=True)


def _date(place: Directory) -> datetime | None:
    """When its files were last written, in the time of this machine."""
    times = [info.mtime for info in place.infos() if info.mtime]
    return max(times).astimezone() if times else None


def _run_facts(place: Directory, name: str) -> RunFacts:
    date = _date(place)
    try:
        run = run_at(place)
        config, history = run.config(), run.history()
    except InputError as error:
        return RunFacts(name, date, fault=error.faults[0])
    method, steps = config["regularizer"], config["train"]["steps"]
    facts = {"method": method["name"], "beta": method["beta"] if method["name"] != "none" else None, "steps": steps}
    if not history:
        return RunFacts(name, date, **facts)
    measure = measure_of(history)
    return RunFacts(
        name,
        date,
        **facts,
        step=history[-1]["step"],
        is_finished=run.is_finished,
        measure=measure,
        validation=measure.of(best_line(history), "val"),
        test=measure.of(history[-1], "test"),
    )


def _search_facts(place: Directory, name: str) -> SearchFacts:
    date = _date(place)
    try:
        trials = read_trials(place)
        best = read_winner(place).run if place.has("best.yaml") else None
    except InputError as error:
        return SearchFacts(name, date, {}, fault=error.faults[0])
    measure = measure_of(trials) if trials else ACCURACY
    scores = [score for trial in trials if (score := measure.of(trial, "val")) is not None]
    top = max(scores, key=lambda score: measure.sign * score, default=None)
    return SearchFacts(name, date, Counter(trial["status"] for trial in trials), measure, top, best)


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side. differing: dotted keys of their recipes and both values; scores: measures and both values."""

    names: tuple[str, str]
    differing: dict[str, tuple[Any, Any]]
    scores: dict[str, tuple[Any, Any]]


def compare(first: str, second: str) -> Comparison:
    """Compares the runs, or trials, in two directories. Raises InputError, one line each, if there is none."""
    places = [Workspace.at(name) for name in (first, second)]
    if faults := [f"{place} holds no run: it has no {CONFIG}." for place in places if not place.has(CONFIG)]:
        raise InputError(faults)
    runs = [run_at(place) for place in places]
    one, other = (_flat({name: run.config().get(name) for name in COMPARED}) for run in runs)
    keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
    scores = [_scores(run.history()) for run in runs]
    names = dict.fromkeys([*scores[0], *scores[1]])
    return Comparison(
        (str(places[0]), str(places[1])),
        {key: (one.get(key), other.get(key)) for key in keys},
        {name: (scores[0].get(name), scores[1].get(name)) for name in names},
    )


def _flat(section: Any, above: str = "") -> dict[str, Any]:
    """Values by dotted key; the teachers by their names."""
    if isinstance(section, list) and all(isinstance(item, dict) and "name" in item for item in section):
        section = {item["name"]: item for item in section}
    if not isinstance(section, dict):
        return {above: section}
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= _flat(value, f"{above}.{key}" if above else key)
    return found


def _scores(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The scores of the kept student and of the last step."""
    if not history:
        return {}
    best, last = best_line(history), history[-1]
    found = {f"best {name}": best.get(name) for name in ("val_accuracy", "val_loss", "step")}
    return found | {name: last.get(name) for name in ("test_accuracy", "test_loss", "step", "samples_per_s")}


def title_of(method: str, beta: float | None) -> str:
    """The method in words, and its strength."""
    return method_title(method) + (f", beta {beta:g}" if beta is not None else "")
