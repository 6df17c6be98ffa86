"""The numbers of a study: each method's error relative to standard transfer over all settings, with its noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aft_ray.report.pictures import FEWEST_CORRELATED
from aft_ray.report.results import Paired, method_title, t_test
from aft_ray.report.words import CLEAR
from aft_ray.study.found import Found

STANDARD, OURS = "none", "aft"


@dataclass(frozen=True)
class Mean:
    """A method over the settings in which it and standard transfer have final runs.

    relative_error: mean of its relative errors; se: its standard error over settings; over_seeds: the standard error that the
    seeds of each setting alone would give it. better, worse: settings in which it differs from standard transfer by more than
    seeds explain. against_standard, against_aft: how much lower its relative error is, paired by setting.
    """

    method: str
    num_settings: int
    relative_error: float
    se: float
    over_seeds: float
    better: int
    worse: int
    against_standard: Paired
    against_aft: Paired

    @property
    def title(self) -> str:
        return method_title(self.method)


def means(found: Sequence[Found]) -> list[Mean]:
    """Every method besides standard transfer, the lowest mean first."""
    methods = dict.fromkeys(method for one in found for method in one.chosen if method != STANDARD)
    made = [_mean(method, found) for method in methods]
    return sorted((mean for mean in made if mean.num_settings), key=lambda mean: mean.relative_error)


def relative_errors(found: Sequence[Found], method: str) -> dict[str, float]:
    """By setting; without those where it is not known."""
    entries = {one.name: one.chosen[method] for one in found if method in one.chosen}
    return {name: e.relative_error for name, e in entries.items() if not math.isnan(e.relative_error)}


def _mean(method: str, found: Sequence[Found]) -> Mean:
    errors, of_aft = relative_errors(found, method), relative_errors(found, OURS)
    entries = [one.chosen[method] for one in found if one.name in errors]
    values = list(errors.values())
    common = [of_aft[name] - error for name, error in errors.items() if name in of_aft]
    over = [entry.relative_error_se for entry in entries]
    return Mean(
        method,
        len(values),
        statistics.fmean(values) if values else math.nan,
        statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan,
        math.hypot(*over) / len(over) if over else math.nan,
        sum(entry.p_value < CLEAR and entry.gain > 0 for entry in entries),
        sum(entry.p_value < CLEAR and entry.gain < 0 for entry in entries),
        t_test([1 - value for value in values]),
        t_test(common if method != OURS else []),
    )


@dataclass(frozen=True)
class Quality:
    """Sets of teachers in one setting: how much each knows by itself, and the student that it makes with a method.

    points: set of teachers -> (accuracy of a linear head on validation, the student's on test, percent). r: Pearson's, NaN for
    too few points or without spread.
    """

    setting: str
    method: str
    points: dict[tuple[str, ...], tuple[float, float]]

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
            points = {
                teachers: (100 * one.probes[teachers], 100 * entry.test)
                for teachers, entry in one.by_teachers(method).items()
                if teachers in one.probes
            }
            if len(points) >= 3:
                made.append(Quality(one.name, method, points))
    return made
