"""Why a student does or does not follow its teachers: the numbers of `training.closeness`, read from runs, and in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aft_ray.regularizers.probe_statistics import LEAST_R2
from aft_ray.report.results import Group, Training
from aft_ray.search.knowledge import CLEAR_ALIGNMENT

FOLLOWS = 0.7
"""Alignment of student and target from which a student follows: 1,000 steps on digits brought .71 (AFT) and .76 (with probes)."""
BY_HEART = 2.0
"""Distance on validation rows over distance on training rows: 5 to 18 with a hundred rows in all, 1.0 to 1.5 with 2,300."""
STILL_FALLS = 0.012
"""Share that the regularization loses in a tenth of the training: .013 to .024 in 200 steps on digits, .010 in 1,000."""
COLUMNS = (
    "kernel_distance",
    "student_target",
    "student_labels",
    "target_labels",
    "student_head",
    "teachers_head",
)
"""Of the table, in its order; all are means over a method's trainings."""


@dataclass(frozen=True)
class Closeness:
    """One method. numbers: means over its trainings, NaN where no training knows. trained_distance: kernel distance on training
    rows. falls: share that the regularization lost in the last tenth of the training. last_is_best: in half of the trainings
    or more."""

    method: str
    title: str
    numbers: dict[str, float]
    trained_distance: float
    falls: float
    last_is_best: bool

    @property
    def sentence(self) -> str:
        """Why the student did or did not follow; empty without teachers."""
        told = self._reason() if not math.isnan(self.numbers["teachers_head"]) else ""
        return f"{self.title}: {told}" if told else ""

    def _reason(self) -> str:
        numbers = self.numbers
        heads = f"R2 {numbers['student_head']:.2f} from its features, {numbers['teachers_head']:.2f} from the teachers'"
        uses_probes = self.method in ("aft_probe", "probe_kd")
        if numbers["teachers_head"] <= LEAST_R2:
            return "a target without labels. The teachers' features do not tell them at all: leave these teachers out."
        if numbers["target_labels"] < CLEAR_ALIGNMENT:
            way_out = "" if uses_probes else " aft_probe puts them into the target."
            return (
                f"a target that hardly shows the labels (CKA {numbers['target_labels']:.2f}), though a head reads R2"
                f" {numbers['teachers_head']:.2f} from the teachers' features.{way_out}"
            )
        if numbers["kernel_distance"] > BY_HEART * self.trained_distance:
            return (
                f"learnt by heart. Its distance to the target is {self.trained_distance:.2f} on training rows and"
                f" {numbers['kernel_distance']:.2f} on validation rows. Add samples without labels, or lower beta."
            )
        if round(numbers["student_target"], 2) >= FOLLOWS:  # as the table shows it
            follows = f"the student follows its target (CKA {numbers['student_target']:.2f})"
            if numbers["student_head"] < numbers["teachers_head"]:
                return f"{follows}. A head reads {heads}."
            return f"{follows}, and little is left to learn from these teachers. A head reads {heads}."
        if self.falls > STILL_FALLS and self.last_is_best:
            return (
                f"too few steps. The last student was the best, and the regularization still fell by {100 * self.falls:.1f} %"
                " in the last tenth of the training. Raise train.steps."
            )
        return (
            f"too small a student, or too weak a beta. It came no nearer to its target than CKA"
            f" {numbers['student_target']:.2f}, and a head reads {heads}. Try a larger or a pretrained student."
        )

    def row(self) -> dict[str, Any]:
        """A line of closeness.csv."""
        return {"method": self.method, **self.numbers, "in_words": self.sentence}


def closeness_of(groups: Sequence[Group]) -> list[Closeness]:
    """Of each group with a training that has such numbers; runs of before have none."""
    found = []
    for group in groups:
        known = [training for training in group.trainings if training.closeness]
        if known:
            found.append(_closeness(group, known))
    return found


def _closeness(group: Group, trainings: Sequence[Training]) -> Closeness:
    numbers = {key: _mean([training.closeness.get(key) for training in trainings]) for key in COLUMNS}
    is_last = [training.best["step"] == training.history[-1]["step"] for training in trainings]
    return Closeness(
        group.method,
        group.title,
        numbers,
        trained_distance=_mean([training.best.get("kernel_distance") for training in trainings]),
        falls=_mean([_fall(training.history) for training in trainings]),
        last_is_best=sum(is_last) * 2 >= len(is_last),
    )


def _fall(history: Sequence[dict[str, Any]]) -> float:
    """Share that the regularization lost in a tenth of the training, at the rate of the last evaluation; NaN for one alone."""
    if len(history) < 2 or not history[-2].get("regularization") or not history[-1].get("regularization"):
        return math.nan
    before, last = history[-2:]
    tenths = 10 * (last["step"] - before["step"]) / last["step"]
    return float(1 - (last["regularization"] / before["regularization"]) ** (1 / tenths))


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if known else math.nan
