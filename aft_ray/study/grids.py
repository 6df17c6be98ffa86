"""The grids of a study's searches: which keys were tuned for which methods, and which choices lie at an end of their grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aft_ray.recipe.search_section import Range
from aft_ray.report.results import TrialRow, method_title
from aft_ray.study.found import STANDARD, Found

BETA, TEACHERS = "regularizer.beta", "teachers"
OTHER_THAN_KEYS = ("regularizer.name", "train.seed")
PACE = ("train.steps", "train.learning_rate", "regularizer.learning_rate")
"""Steps and rates: methods are compared fairly where these were tuned for all of them alike, or for none."""

MOST_NAMED = 3
"""Settings to name in a sentence; of more the number."""


class Ends(NamedTuple):
    """Settings in which validation chose the lowest, and the highest, of a key's values for a method. low, high: the ends of
    all grids together."""

    low: float
    high: float
    lowest: list[str]
    highest: list[str]


def remarks(found: Sequence[Found]) -> list[str]:
    """What was tuned, and a warning for each method whose best value is an end of its grid."""
    return [*_tuning(found), *_warnings(found)]


def ends(found: Iterable[Found], method: str, key: str = BETA) -> Ends:
    """How often the method's choice of a number lies at an end of its grid."""
    reached = Ends(float("inf"), float("-inf"), [], [])
    for one in found:
        value, tried = _chosen(one, method, key), _grid(one, method, key)
        if value is None or len(tried) < 2:
            continue
        low, high = min(reached.low, tried[0]), max(reached.high, tried[-1])
        lowest = [one.name] * (value == tried[0] and value > 0)  # below zero there is nothing
        highest = [one.name] * (value == tried[-1])
        reached = Ends(low, high, [*reached.lowest, *lowest], [*reached.highest, *highest])
    return reached


def _warnings(found: Sequence[Found]) -> list[str]:
    """One sentence on all choices at the end of their grid; none where there are none."""
    told = []
    for method in _methods(found):
        keys = dict.fromkeys(key for one in found if method in one.chosen for key, _ in one.chosen[method].others)
        for key in (BETA, *keys):
            reached, of = ends(found, method, key), sum(len(_grid(one, method, key)) > 1 for one in found)
            sides = {"lowest": reached.lowest, "highest": reached.highest}
            where = ", ".join(f"the {side} in {_settings(names, of)}" for side, names in sides.items() if names)
            if where:
                told.append(f"{_short(key)} of {method_title(method)} ({where})")
    if not told:
        return []
    return [
        f"At the end of their grid, so that values beyond may be better: {'; '.join(told)}. Widen search.beta or search.space."
    ]


def _settings(names: Sequence[str], of: int) -> str:
    return ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} of {of} settings"


def _tuning(found: Sequence[Found]) -> list[str]:
    """Which keys had several values, and for which methods; which steps and rates had not."""
    methods = _methods(found)
    values: dict[str, dict[str, set[str]]] = {}
    several: dict[str, list[str]] = {}
    for method in methods:
        for one in found:
            for key, tried in _tried(one.rows, method).items():
                values.setdefault(key, {}).setdefault(method, set()).update(tried)
                if len(tried) > 1 and method not in several.setdefault(key, []):
                    several[key].append(method)
    tuned = [f"{_short(key)} for {_named(those, methods)}" for key, those in several.items() if those]
    fixed = [_fixed(key, values.get(key, {})) for key in PACE if not several.get(key)]
    told = [f"Tuned on validation: {'; '.join(tuned)}."] if tuned else []
    return [*told, *([f"The same in every trial of a setting: {', '.join(fixed)}."] if fixed and methods else [])]


def _fixed(key: str, values: Mapping[str, set[str]]) -> str:
    """The key, with the methods that have a value of their own."""
    own = [f"{' or '.join(sorted(found))} for {method_title(method)}" for method, found in values.items()]
    return f"{key} ({', '.join(own)})" if own else key


def _named(methods: Sequence[str], of: Sequence[str]) -> str:
    left_out = [method for method in of if method not in methods]
    if not left_out:
        return "every method"
    if left_out == [STANDARD]:
        return f"every method but {method_title(STANDARD)}"
    return ", ".join(map(method_title, methods))


def _tried(rows: Iterable[TrialRow], method: str) -> dict[str, set[str]]:
    """The values of each key that the search tried with the method, as text."""
    found: dict[str, set[str]] = {}
    for row in rows:
        if row["stage"] == "search" and row["regularizer.name"] == method:
            for key, value in row.items():
                if (key == TEACHERS or "." in key) and key not in OTHER_THAN_KEYS and value is not None:
                    found.setdefault(key, set()).add(str(value))
    return found


def _grid(one: Found, method: str, key: str) -> list[float]:
    """The numbers that a setting tried, sorted; none for a range and for values that are no numbers."""
    search = one.recipe.search
    space = search.betas(method) if key == BETA else search.space_of(method).get(key, ())
    rows = [row for row in one.rows if row["stage"] == "search" and row["regularizer.name"] == method]
    values = {row[key] for row in rows if _is_number(row.get(key))}
    return [] if isinstance(space, Range) else sorted(values)


def _chosen(one: Found, method: str, key: str) -> float | None:
    entry = one.chosen.get(method)
    value = None if entry is None else entry.beta if key == BETA else dict(entry.others).get(key)
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _methods(found: Sequence[Found]) -> list[str]:
    return list(dict.fromkeys(row["regularizer.name"] for one in found for row in one.rows))


def _short(key: str) -> str:
    return "beta" if key == BETA else key
