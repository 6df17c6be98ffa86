"""Defines "best": the score that compares evaluations, settings and methods, and its form for people.

A task with classes is compared by its accuracy, a regression by its loss. A higher `score` is better for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A measured number for people.

    name: as in the keys of metrics.jsonl, after `val_` and `test_`. sign: 1 where more is better, else -1. factor: from a
    value to the number that is shown, in `unit`. digits, short: how tables, and how sentences and pictures write it.
    error: small for a good student: the share of errors, or the measure itself.
    """

    name: str
    sign: int
    factor: float
    unit: str
    digits: str
    short: str
    error: str

    def of(self, line: Mapping[str, Any], split: str) -> float | None:
        """The measure on a split, from an evaluation or a row of trials; None where it is not known."""
        return line.get(f"{split}_{self.name}")

    def error_of(self, value: float) -> float:
        return 1 - value if self.sign > 0 else value

    def gain(self, value: float, other: float) -> float:
        """How much better `value` is than `other`."""
        return self.sign * (value - other)

    def head(self, name: str, comma: str = "") -> str:
        """`name` with the unit, for the head of a table or, after a comma, a picture."""
        return f"{name}{comma} {self.unit}" if self.unit else name

    def number(self, value: float) -> str:
        """A value, or a difference of two, as tables show it; a dash for NaN."""
        return "–" if math.isnan(value) else format(self.factor * value, self.digits)

    def amount(self, value: float) -> str:
        """A value with its unit, as sentences show it."""
        return f"{self.factor * value:{self.short}} {self.unit}".strip()

    def difference(self, value: float) -> str:
        """A difference of two values, as sentences show it."""
        return f"{self.factor * value:{self.short}}{' points' if self.unit else ''}"


ACCURACY = Measure("accuracy", sign=1, factor=100.0, unit="%", digits=".2f", short=".1f", error="error")
LOSS = Measure("loss", sign=-1, factor=1.0, unit="", digits=".4g", short=".4g", error="loss")


def measure_of(lines: Iterable[Mapping[str, Any]]) -> Measure:
    """The measure of the task that evaluations or rows of trials belong to: the loss if they have no accuracy."""
    known = {
        measure
        for line in lines
        for measure in (ACCURACY, LOSS)
        for split in ("val", "test")
        if measure.of(line, split) is not None
    }
    return LOSS if known == {LOSS} else ACCURACY


def score(line: Mapping[str, Any], metric: str | None = None) -> float:
    """The score of an evaluation, or of a row of trials; higher is better: validation accuracy, or the negative loss.

    metric: `val_accuracy` or `val_loss`; None takes the task's own. A loss of NaN is the worst. Without a validation split
    the later evaluation is better.
    """
    accuracy, loss = line.get("val_accuracy"), line.get("val_loss")
    if accuracy is not None and (metric != "val_loss" or loss is None):
        return accuracy
    if loss is None:
        return line["step"]
    return -math.inf if math.isnan(loss) else -loss


def best_line(history: Iterable[dict[str, Any]], metric: str | None = None) -> dict[str, Any]:
    """The evaluation whose student is kept: the first one with the highest score."""
    return max(history, key=lambda line: score(line, metric))


def best_score(history: Iterable[dict[str, Any]], metric: str | None = None) -> float | None:
    """The highest score of a history; None of an empty one."""
    return max((score(line, metric) for line in history), default=None)
