"""The tables of a study's page, as rows of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aft_ray.report.results import Entry, method_title
from aft_ray.report.words import chance
from aft_ray.study.averages import Comparison, compared, is_clear
from aft_ray.study.found import STANDARD, Found
from aft_ray.training.best import Measure


def mark(entry: Entry | None) -> str:
    """Behind a method's relative error: whether it differs from standard transfer by more than seeds explain."""
    if entry is None:
        return ""
    return " ✓" if is_clear(entry, 1) else " ✗" if is_clear(entry, -1) else ""


def against(found: Sequence[Found], methods: Sequence[str]) -> list[list[str]]:
    """A row for each method, a cell for each other: settings where it is clearly better and worse, gain and p over settings."""
    return [
        [method_title(method), *(_duel(compared(method, other, found), found) for other in methods)]
        for method in methods
    ]


def _duel(duel: Comparison, found: Sequence[Found]) -> str:
    if duel.method == duel.other or not duel.num_settings:
        return "–"
    measure = next(one.measure for one in found if one.chosen)
    told = "" if math.isnan(duel.gain) else f", {_gain(measure, duel.gain, duel.p_value)}"
    return f"{duel.better} : {duel.worse}{told}"


def set_rows(one: Found) -> list[list[str]]:
    """A row for each method and set of teachers with final runs: what the set knows, its student, and gains."""
    rows = []
    for method in one.chosen:
        entries = one.by_teachers(method)
        for number, (teachers, entry) in enumerate(entries.items(), 1) if len(entries) > 1 else ():
            measure = entry.measure
            own, over = one.probes.get(teachers, math.nan), one.over_best_single(method, teachers)
            rows.append(
                [
                    one.name,
                    method_title(method),
                    str(number),
                    " + ".join(teachers),
                    "–" if math.isnan(own) else f"{100 * own:.1f}",
                    measure.number(entry.test),
                    _gain(measure, entry.gain, entry.p_value),
                    _gain(measure, over.gain, over.p_value) if over else "",
                ]
            )
    return rows


def _gain(measure: Measure, gain: float, p_value: float) -> str:
    if math.isnan(gain):
        return "–"
    return f"{measure.factor * gain:+{measure.digits}}{'' if math.isnan(p_value) else f', p {chance(p_value)}'}"


def fact_row(one: Found) -> list[str]:
    """A row on the setting: its samples, a linear head on the chosen teachers with the labels that training has, and how
    much the teacher that knows most tells of the labels."""
    counts = one.record.samples or {}
    heads = [probe["with_own_labels"] for probe in one.record.probes if "with_own_labels" in probe]
    days = sorted({run["date"] for run in one.record.runs})
    told = [f"{counts[key]:,}" if key in counts else "–" for key in ("labels", "train", "test")]
    head = f"{100 * max(heads):.1f}" if heads else "–"
    best = max(one.record.told, key=lambda teacher: teacher["r2"], default=None)
    knows = [f"{best['r2']:.2f}", f"{best.get('alignment', math.nan):.2f}"] if best else ["–", "–"]
    return [one.name, one.data, one.student, *told, head, *knows, ", ".join(days) or "–"]


def time_rows(found: Sequence[Found], methods: Sequence[str]) -> list[list[str]]:
    """A row for each setting: milliseconds of a step by method, and how much more than standard transfer."""
    rows = []
    for one in found:
        known = one.record.step_ms or {}
        if known:
            standard = known.get(STANDARD)
            rows.append([one.name, *(_time(known.get(method), standard) for method in methods)])
    return rows


def _time(ms: float | None, standard: float | None) -> str:
    if ms is None:
        return "–"
    return f"{ms:.1f}" if standard is None or ms == standard else f"{ms:.1f} ({100 * (ms / standard - 1):+.0f}\u00a0%)"
