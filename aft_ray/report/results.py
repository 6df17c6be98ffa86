"""The numbers of a search and of single runs: plain statistics of their trials, finished or not. Nothing here reads a disk."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr  # Student's t: scipy.stats alone takes a second to import

from aft_ray.regularizers import REGULARIZERS
from aft_ray.search.best import best_settings
from aft_ray.search.trials import SettingKey, TrialRow, setting_key
from aft_ray.training.best import ACCURACY, Measure, best_line, measure_of

METHODS = {name: kind.title for name, kind in REGULARIZERS.items()}
"""Every method of this package in words."""


def method_title(method: str) -> str:
    """The method in words; a class of the user's own, which need not be at hand, by its name."""
    return METHODS.get(method, method.rpartition(":")[2])


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard: a method at a setting with final runs.

    others: other searched keys of the recipe. measure: of the task; `validation`, `test` and `test_se` are in its unit.
    finals: rows of the final runs that reached the test split; without any the columns of test are NaN. validation: mean over
    the search's trials of this setting. trials: names of the final runs, or else of the search's trials; searched: of these.
    The standard errors (`_se`) are NaN with one seed. relative_error is the test error (of a regression, the loss) over the
    mean one of standard transfer; its standard error, gain and p_value come from `paired_test` against standard transfer, so
    they include its spread over seeds; NaN without it. is_chosen: whether validation chose this setting among the shown ones
    of its method, which may have several with final runs.
    """

    method: str
    beta: float
    teachers: tuple[str, ...]
    others: tuple[tuple[str, Any], ...]
    measure: Measure
    finals: tuple[TrialRow, ...]
    validation: float
    test: float
    test_se: float
    relative_error: float
    relative_error_se: float
    gain: float
    p_value: float
    trials: tuple[str, ...]
    is_chosen: bool
    searched: tuple[str, ...]

    @property
    def title(self) -> str:
        return method_title(self.method)

    @property
    def setting(self) -> str:
        with_teachers = [f"beta {self.beta:g}", " + ".join(self.teachers)] if self.teachers else []
        return ", ".join([*with_teachers, *(f"{key} {value}" for key, value in self.others)])

    @property
    def num_seeds(self) -> int:
        return len(self.finals)

    @property
    def test_error(self) -> float:
        return self.measure.error_of(self.test)

    @property
    def place(self) -> tuple[bool, float, float]:
        """Orders entries, the best first: entries with final runs by their test error, then the others by validation."""
        tested = bool(self.finals)
        return not tested, self.test_error if tested else 0.0, self.measure.error_of(self.validation)


@dataclass(frozen=True)
class Training:
    """The files of one run or trial, read. gates: every teacher's learned factors; empty for methods without gates.
    closeness: of the kept student to its teachers; empty for a run of before, or without a validation split."""

    name: str
    recipe: dict[str, Any]
    history: list[dict[str, Any]]
    gates: dict[str, np.ndarray]
    closeness: dict[str, float | None]

    @property
    def method(self) -> str:
        return self.recipe["regularizer"]["name"]

    @property
    def title(self) -> str:
        return method_title(self.method)

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation that gave the kept student."""
        return best_line(self.history)

    def validation(self, measure: Measure) -> float:
        return _number(measure.of(self.best, "val"))

    def test(self, measure: Measure) -> float:
        return _number(measure.of(self.history[-1], "test"))


@dataclass(frozen=True)
class Group:
    """Trainings that differ in the seed alone; at least one."""

    title: str
    trainings: list[Training]

    @property
    def method(self) -> str:
        return self.trainings[0].method

    def mean_curve(self, key: str) -> tuple[list[int], list[float]]:
        """Steps, and the mean of `key` over the trainings, where all of them evaluated it."""
        values: dict[int, list[float]] = defaultdict(list)
        for training in self.trainings:
            for line in training.history:
                if line.get(key) is not None:
                    values[line["step"]].append(line[key])
        steps = sorted(step for step, found in values.items() if len(found) == len(self.trainings))
        return steps, [statistics.fmean(values[step]) for step in steps]


def summarize(rows: Iterable[TrialRow], metric: str | None = None) -> list[Entry]:
    """Each setting with final runs, the lowest test error first: means and standard errors over these runs.

    A method without final runs is shown by its best setting on validation, after the others. metric: `search.metric`.
    """
    rows = list(rows)
    measure = measure_of(rows)
    searched: dict[SettingKey, list[TrialRow]] = defaultdict(list)
    tested: dict[SettingKey, list[TrialRow]] = defaultdict(list)
    for row in rows:
        if row["stage"] == "final" and measure.of(row, "test") is not None:
            tested[setting_key(row)].append(row)
        elif row["stage"] == "search" and measure.of(row, "val") is not None:
            searched[setting_key(row)].append(row)
    chosen = {key[0]: key for key in reversed(tested)}  # the first, where the search's trials are unknown
    of_tested = [row for key in tested for row in searched[key]]
    chosen |= {method: choice.key for method, choice in best_settings(of_tested, metric).items()}
    untested = [choice.key for method, choice in best_settings(rows, metric).items() if method not in chosen]
    standard = tested[chosen["none"]] if "none" in chosen else []
    shown = {*chosen.values(), *untested}
    entries = [
        entry_of(key, measure, tested[key], searched[key], standard, key in shown) for key in (*tested, *untested)
    ]
    return sorted(entries, key=lambda entry: entry.place)


def entry_of(
    key: SettingKey,
    measure: Measure,
    finals: Sequence[TrialRow],
    trials: Sequence[TrialRow],
    standard: Sequence[TrialRow],
    is_chosen: bool,
) -> Entry:
    """The line of a setting from its final runs and its trials, compared with final runs of standard transfer."""
    method, beta, teachers, others = key
    tests, validations = _values(finals, measure, "test"), _values(trials, measure, "val")
    test = statistics.fmean(tests) if tests else math.nan
    errors = [measure.error_of(value) for value in _values(standard, measure, "test")]
    standard_error = statistics.fmean(errors) if errors else math.nan
    paired = paired_test(finals, standard if method != "none" else (), measure)
    return Entry(
        method,
        beta,
        teachers,
        others,
        measure,
        finals=tuple(finals),
        validation=statistics.fmean(validations) if validations else math.nan,
        test=test,
        test_se=statistics.stdev(tests) / math.sqrt(len(tests)) if len(tests) > 1 else math.nan,
        relative_error=measure.error_of(test) / standard_error if standard_error else math.nan,
        relative_error_se=paired.se / standard_error if standard_error else math.nan,
        gain=paired.gain,
        p_value=paired.p_value,
        trials=tuple(row["trial"] for row in finals or trials),
        is_chosen=is_chosen,
        searched=tuple(row["trial"] for row in trials),
    )


class Paired(NamedTuple):
    """Mean gain over other runs with the same seeds, its standard error, and the two-sided p-value of a paired t-test."""

    gain: float
    se: float
    p_value: float


def paired_test(rows: Sequence[TrialRow], others: Sequence[TrialRow], measure: Measure = ACCURACY) -> Paired:
    """The gain of `rows` over `others` on test. NaN where fewer than two seeds are common, or no seed is."""
    by_seed = {row["seed"]: row for row in others}
    pairs = [(row, by_seed[row["seed"]]) for row in rows if row["seed"] in by_seed]
    return t_test([measure.gain(*_values(pair, measure, "test")) for pair in pairs])


def t_test(gains: Sequence[float]) -> Paired:
    """Whether gains differ from zero on average. NaN for fewer than two."""
    if len(gains) < 2:
        return Paired(gains[0] if gains else math.nan, math.nan, math.nan)
    mean, se = statistics.fmean(gains), statistics.stdev(gains) / math.sqrt(len(gains))
    if not se:
        return Paired(mean, se, 1.0 if not mean else 0.0)
    return Paired(mean, se, float(2 * stdtr(len(gains) - 1, -abs(mean / se))))


def _values(rows: Iterable[TrialRow], measure: Measure, split: str) -> list[float]:
    return [value for row in rows if (value := measure.of(row, split)) is not None]


def _number(value: float | None) -> float:
    return math.nan if value is None else value
