"""The numbers of a study: each method's error relative to standard transfer over all settings, with its noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aft_ray.report.pictures import FEWEST_CORRELATED
from aft_ray.report.results import Entry, Paired, method_title, paired_test, t_test
from aft_ray.report.words import CLEAR
from aft_ray.study.found import STANDARD, Found

OURS = "aft"
FEWEST_DATA = 4
"""Data sets for an interval: of fewer a bootstrap has nothing to draw."""
DRAWS = 10_000


@dataclass(frozen=True)
class Mean:
    """A method over the settings in which it and standard transfer have final runs.

    relative_error: mean of its relative errors; se: its standard error over settings; over_seeds: the standard error that the
    seeds of each setting alone would give it; over_data: the mean where each data set counts once; low, high: its interval of
    95 % by bootstrap over data sets (Efron 1979, percentiles), NaN for fewer than FEWEST_DATA. better, worse: settings in
    which it differs from standard transfer by more than seeds explain. holm: settings in which it stays better when all its
    comparisons count as one family. against_standard, against_aft: how much lower its relative error is, paired by setting.
    """

    method: str
    num_settings: int
    relative_error: float
    se: float
    over_seeds: float
    over_data: float
    low: float
    high: float
    better: int
    worse: int
    holm: int
    against_standard: Paired
    against_aft: Paired

    @property
    def title(self) -> str:
        return method_title(self.method)


def means(found: Sequence[Found]) -> list[Mean]:
    """Every method besides standard transfer, the lowest mean first."""
    methods = dict.fromkeys(method for one in found for method in one.chosen if method != STANDARD)
    made = [mean_of(method, found) for method in methods]
    return sorted((mean for mean in made if mean.num_settings), key=lambda mean: mean.relative_error)


def relative_errors(found: Iterable[Found], method: str) -> dict[str, float]:
    """By setting; without those where it is not known."""
    entries = {one.name: one.chosen[method] for one in found if method in one.chosen}
    return {name: e.relative_error for name, e in entries.items() if not math.isnan(e.relative_error)}


def mean_of(method: str, found: Sequence[Found]) -> Mean:
    """The method over the settings that have it; NaN and 0 if none has."""
    errors, of_aft = relative_errors(found, method), relative_errors(found, OURS)
    entries = [one.chosen[method] for one in found if one.name in errors]
    values = list(errors.values())
    common = [of_aft[name] - error for name, error in errors.items() if name in of_aft]
    over = [entry.relative_error_se for entry in entries]
    by_data: dict[str, list[float]] = {}
    for one in found:
        if one.name in errors:
            by_data.setdefault(one.data, []).append(errors[one.name])
    of_data = [statistics.fmean(own) for own in by_data.values()]
    return Mean(
        method,
        len(values),
        statistics.fmean(values) if values else math.nan,
        statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan,
        math.hypot(*over) / len(over) if over else math.nan,
        statistics.fmean(of_data) if values else math.nan,
        *_interval(of_data),
        sum(is_clear(entry, 1) for entry in entries),
        sum(is_clear(entry, -1) for entry in entries),
        _holm(entries),
        t_test([1 - value for value in values]),
        t_test(common if method != OURS else []),
    )


def _interval(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < FEWEST_DATA:
        return math.nan, math.nan
    draws = np.random.default_rng(0).choice(np.array(values), (DRAWS, len(values))).mean(axis=1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def is_clear(entry: Entry, sign: int) -> bool:
    """Whether the method is better (sign 1) or worse (-1) than standard transfer by more than seeds explain."""
    return sign * entry.gain > 0 and entry.p_value < CLEAR


def _holm(entries: Iterable[Entry]) -> int:
    """Gains that stay clear by Holm's correction for as many comparisons."""
    ordered = sorted((entry for entry in entries if not math.isnan(entry.p_value)), key=lambda entry: entry.p_value)
    count = 0
    for rank, entry in enumerate(ordered):
        if not entry.p_value < CLEAR / (len(ordered) - rank):
            break
        count += entry.gain > 0
    return count


class Comparison(NamedTuple):
    """A method against another, paired by seed within each setting that has both. better, worse: settings in which they differ
    by more than seeds explain. gain: mean over settings, in the unit of the measure; p_value: of a t-test over settings."""

    method: str
    other: str
    num_settings: int
    better: int
    worse: int
    gain: float
    p_value: float


def compared(method: str, other: str, found: Iterable[Found]) -> Comparison:
    """NaN for a gain over settings that are measured differently, or over none."""
    both = [one for one in found if {method, other} <= one.chosen.keys()]
    tests = [paired_test(one.chosen[method].finals, one.chosen[other].finals, one.measure) for one in both]
    gains = [test.gain for test in tests] if len({one.measure for one in both}) == 1 else []
    return Comparison(
        method,
        other,
        len(both),
        sum(test.gain > 0 and test.p_value < CLEAR for test in tests),
        sum(test.gain < 0 and test.p_value < CLEAR for test in tests),
        statistics.fmean(gains) if gains else math.nan,
        t_test(gains).p_value,
    )


@dataclass(frozen=True)
class Quality:
    """Sets of teachers in one setting: how much each knows by itself, and the student that it makes with a method.

    points: set of teachers -> (accuracy of a linear head on validation, the student's on test, percent). numbers: of the sets,
    as in the page's table. r: Pearson's, NaN for too few points or without spread.
    """

    setting: str
    method: str
    points: dict[tuple[str, ...], tuple[float, float]]
    numbers: dict[tuple[str, ...], int]

    @property
    def r(self) -> float:
        x, y = np.array(list(self.points.values())).T
        known = len(x) >= FEWEST_CORRELATED and x.std() > 0 and y.std() > 0
        return float(np.corrcoef(x, y)[0, 1]) if known else math.nan


def qualities(found: Sequence[Found]) -> list[Quality]:
    """Of each setting and method with final runs of three sets of teachers or more."""
    made = []
    for one in found:
        for method in one.chosen:
            entries = one.by_teachers(method)
            known = [teachers for teachers in entries if teachers in one.probes]
            points = {teachers: (100 * one.probes[teachers], 100 * entries[teachers].test) for teachers in known}
            if len(points) >= 3:
                made.append(Quality(one.name, method, points, {t: n for n, t in enumerate(entries, 1)}))
    return made
