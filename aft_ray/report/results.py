"""What a search found, in numbers and in words: plain statistics of finished and unfinished trials, and nothing of disks."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t: scipy.stats alone takes a second to import

from aft_ray.regularizers import REGULARIZERS
from aft_ray.search.trials import Row, SettingKey, setting_key

METHODS = {name: kind.title for name, kind in REGULARIZERS.items()}
"""Every method of this package in words."""


def method_title(method: str) -> str:
    """The method in words; a class of the user's own, which need not be at hand, by its name."""
    return METHODS.get(method, method.rpartition(":")[2])


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard: a method at its chosen setting.

    others: other searched keys of the recipe. num_seeds: final runs that reached the test split; without any the test
    columns are NaN. val_accuracy: of the search's trials of this setting. The standard errors (`_se`) are NaN with one
    seed. relative_error is the test error over the mean test error of standard transfer; its standard error, gain and
    p_value are those of `paired_test` against it, so that what seeds do to standard transfer is in them; NaN without it.
    """

    method: str
    beta: float
    teachers: tuple[str, ...]
    others: tuple[tuple[str, Any], ...]
    num_seeds: int
    val_accuracy: float
    test_accuracy: float
    test_accuracy_se: float
    relative_error: float
    relative_error_se: float
    gain: float
    p_value: float
    trials: tuple[str, ...]

    @property
    def title(self) -> str:
        return method_title(self.method)

    @property
    def setting(self) -> str:
        with_teachers = [f"beta {self.beta:g}", " + ".join(self.teachers)] if self.teachers else []
        return ", ".join([*with_teachers, *(f"{key} {value}" for key, value in self.others)])

    @property
    def test_error(self) -> float:
        return 1 - self.test_accuracy


@dataclass(frozen=True)
class Training:
    """What one run or trial left behind. gates: every teacher's learned factors; empty for methods without gates."""

    name: str
    recipe: dict[str, Any]
    history: list[dict[str, Any]]
    gates: dict[str, np.ndarray]

    @property
    def method(self) -> str:
        return self.recipe["regularizer"]["name"]

    @property
    def title(self) -> str:
        return method_title(self.method)

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation whose student is kept: that with the highest validation accuracy, or else the last."""
        return max(
            self.history, key=lambda line: line["step"] if line["val_accuracy"] is None else line["val_accuracy"]
        )

    @property
    def test_accuracy(self) -> float:
        return self.history[-1].get("test_accuracy", math.nan)


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


def summarize(rows: Iterable[Row]) -> list[Entry]:
    """Each method at its chosen setting: means and standard errors over final runs, the lowest test error first.

    A method without final runs is shown by its best setting, after the others.
    """
    searched: dict[SettingKey, list[Row]] = defaultdict(list)
    tested: dict[SettingKey, list[Row]] = defaultdict(list)
    for row in rows:
        if row["stage"] == "final" and row["test_accuracy"] is not None:
            tested[setting_key(row)].append(row)
        elif row["stage"] == "search" and row["val_accuracy"] is not None:
            searched[setting_key(row)].append(row)
    validation = {key: statistics.fmean(row["val_accuracy"] for row in found) for key, found in searched.items()}
    champions: dict[str, SettingKey] = {}
    for key in validation:
        if key[0] not in champions or validation[key] > validation[champions[key[0]]]:
            champions[key[0]] = key
    with_finals = {key[0] for key in tested}
    shown = [*tested, *(key for method, key in champions.items() if method not in with_finals)]
    standard = [row for key, found in tested.items() if key[0] == "none" for row in found]
    entries = [_entry(key, tested[key], searched[key], validation.get(key, math.nan), standard) for key in shown]
    return sorted(
        entries, key=lambda entry: (not entry.num_seeds, entry.num_seeds and entry.test_error, -entry.val_accuracy)
    )


def _entry(
    key: SettingKey, finals: Sequence[Row], trials: Sequence[Row], val_accuracy: float, standard: Sequence[Row]
) -> Entry:
    method, beta, teachers, others = key
    tests = [row["test_accuracy"] for row in finals]
    test_accuracy = statistics.fmean(tests) if tests else math.nan
    test_accuracy_se = statistics.stdev(tests) / math.sqrt(len(tests)) if len(tests) > 1 else math.nan
    standard_error = statistics.fmean(1 - row["test_accuracy"] for row in standard) if standard else math.nan
    paired = paired_test(finals, standard if method != "none" else ())
    return Entry(
        method,
        beta,
        teachers,
        others,
        num_seeds=len(tests),
        val_accuracy=val_accuracy,
        test_accuracy=test_accuracy,
        test_accuracy_se=test_accuracy_se,
        relative_error=(1 - test_accuracy) / standard_error if standard_error else math.nan,
        relative_error_se=paired.se / standard_error if standard_error else math.nan,
        gain=paired.gain,
        p_value=paired.p_value,
        trials=tuple(row["trial"] for row in finals or trials),
    )


class Paired(NamedTuple):
    """Mean gain in accuracy over other runs with the same seeds, its standard error, and the two-sided p-value of a paired
    t-test."""

    gain: float
    se: float
    p_value: float


def paired_test(rows: Sequence[Row], others: Sequence[Row]) -> Paired:
    """The gain of `rows` over `others` in test accuracy. NaN where fewer than two seeds are common, or no seed is."""
    by_seed = {row["seed"]: row["test_accuracy"] for row in others}
    gains = [row["test_accuracy"] - by_seed[row["seed"]] for row in rows if row["seed"] in by_seed]
    if len(gains) < 2:
        return Paired(gains[0] if gains else math.nan, math.nan, math.nan)
    mean, se = statistics.fmean(gains), statistics.stdev(gains) / math.sqrt(len(gains))
    if not se:
        return Paired(mean, se, 1.0 if not mean else 0.0)
    return Paired(mean, se, float(2 * stdtr(len(gains) - 1, -abs(mean / se))))


def headline(entries: Sequence[Entry]) -> str:
    """What came out: the best method against standard transfer, and AFT against it where AFT is not the best."""
    tested = [entry for entry in entries if entry.num_seeds]
    if not tested:
        best = entries[0]
        return (
            f"{best.title}{f' ({best.setting})' if best.setting else ''} has the best validation accuracy of the search,"
            f" {100 * best.val_accuracy:.1f} %. Final runs, the only ones that see the test split, are missing."
        )
    best, *others = tested
    if not others:
        seeds = f"{best.num_seeds} seed{'s' if best.num_seeds > 1 else ''}"
        return f"{best.title}: {100 * best.test_error:.1f} % test error ({seeds}), with no other method to compare."
    reference = next((entry for entry in others if entry.method == "none"), others[0])
    sentences = [compare(best, reference)]
    sentences += [compare(entry, best) for entry in others if entry.method == "aft" and entry is not reference]
    return " ".join(sentences)


def runs_in_words(runs: Sequence[Training]) -> str:
    """The best of some runs, for want of a search with results."""
    if not runs:
        return "No trial has a score; the reasons are below."
    run = max(runs, key=lambda run: run.best["val_accuracy"])
    text = f"Run {run.name} ({run.title}): {100 * run.best['val_accuracy']:.1f} % validation accuracy"
    if math.isnan(run.test_accuracy):
        return f"{text}; it has not reached the test split."
    return f"{text}, {100 * (1 - run.test_accuracy):.1f} % test error. One run alone has no standard error."


def compare(entry: Entry, other: Entry) -> str:
    """Both errors, and whether they differ by more than seeds explain (Welch's t-test at 95 %)."""
    errors = f"{entry.title}: {100 * entry.test_error:.1f} % test error against {100 * other.test_error:.1f} % of {other.title}"
    seeds = " and ".join(str(count) for count in dict.fromkeys((entry.num_seeds, other.num_seeds)))
    if min(entry.num_seeds, other.num_seeds) < 2:
        return f"{errors}, but one seed has no standard error: this shows no difference."
    spread = f"{100 * entry.test_accuracy_se:.1f} and {100 * other.test_accuracy_se:.1f}"
    combined = math.hypot(entry.test_accuracy_se, other.test_accuracy_se)
    difference = abs(entry.test_error - other.test_error)
    ratio = f"{difference / combined:.1f} times the combined standard error" if combined else "the same in every seed"
    verdict = "more than seeds explain" if _is_clear(entry, other) else "within the noise of seeds, so neither is ahead"
    return (
        f"{errors} ({seeds} seeds, standard errors {spread})."
        f" The difference of {100 * difference:.1f} points is {ratio}: {verdict}."
    )


def _is_clear(entry: Entry, other: Entry) -> bool:
    shares = [(each.test_accuracy_se**2, each.test_accuracy_se**4 / (each.num_seeds - 1)) for each in (entry, other)]
    variance, fourth = (sum(column) for column in zip(*shares, strict=True))
    difference = abs(entry.test_error - other.test_error)
    if not fourth:
        return difference > 0
    degrees_of_freedom = variance**2 / fourth
    return difference > stdtrit(degrees_of_freedom, 0.975) * math.sqrt(variance)
