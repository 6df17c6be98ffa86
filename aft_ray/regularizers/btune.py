"""B-Tuning (arXiv 2110.10545), a baseline of AFT's paper."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aft_ray.regularizers.base import Regularizer, Scope
from aft_ray.regularizers.distributed import Rows
from aft_ray.regularizers.fitting import FittingData
from aft_ray.regularizers.logme import Float64, LogMEStatistics

TEMPERATURE = 0.1
"""Teachers are weighed by softmax(score / 0.1)."""


class BTuning(Regularizer):
    """B-Tuning: mean squared difference of LogME predictions from student and from weighted teacher features.

    It is off where every score is -infinity: the features of all teachers are 0.
    """

    name = "btune"
    title = "B-tuning"
    colours = ("#946800", "#e6b422")
    betas = (0.5, 2.0, 8.0, 32.0)
    needs_classes = True

    student_weights: Tensor
    teacher_weights: Tensor

    def __init__(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        *,
        student_weights: np.ndarray | Tensor,
        teacher_weights: Sequence[np.ndarray | Tensor],
        scores: Sequence[float],
        scope: Scope = "global",
    ) -> None:
        """LogME's weights of the pretrained student (C, S) and of each teacher (C, T_k), and the K teachers' scores."""
        super().__init__(student_dim, teacher_dims, scope=scope)
        weights_CS = torch.as_tensor(student_weights)
        weights_CT = [torch.as_tensor(weights) for weights in teacher_weights]
        num_classes = weights_CS.shape[0]
        _check_widths("student_weights", [weights_CS], num_classes, [student_dim])
        _check_widths("teacher_weights", weights_CT, num_classes, self.teacher_dims)
        if len(scores) != len(self.teacher_dims):
            raise ValueError(f"scores must be one per teacher, {len(self.teacher_dims)}, got {len(scores)}.")
        self._is_off = max(scores) == -math.inf  # the softmax of such scores would be NaN
        known_K = torch.as_tensor(scores, dtype=weights_CT[0].dtype)
        shares_K = torch.zeros_like(known_K) if self._is_off else (known_K / TEMPERATURE).softmax(0)
        self.register_buffer("student_weights", weights_CS)
        self.register_buffer(
            "teacher_weights",
            torch.cat([share * weights for share, weights in zip(shares_K, weights_CT, strict=True)], 1),
        )

    @property
    def is_off(self) -> bool:
        return self._is_off

    @classmethod
    def fitted_options(cls, data: FittingData) -> dict[str, Any]:
        """LogME's solutions for each teacher, and for the student as it is before training; a run that goes on has these in its
        checkpoint, and the student is not run over the train split again."""
        of_teachers = []
        for number, dim in enumerate(data.teacher_dims):
            of_teachers.append(LogMEStatistics(dim, data.num_outputs))
            for features, labels in data.teacher_rows([number]):
                of_teachers[-1].update(features, labels)
        of_student = LogMEStatistics(data.student_dim, data.num_outputs)
        if data.weights_follow:
            return _options(np.zeros_like(of_student.class_sums_CD), of_teachers)
        for features, labels in data.student_rows():
            of_student.update(features, labels)
        return btune_options(of_student, of_teachers)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        if self._is_off:
            return 0.0 * student[0].sum()
        student_bC = student[0] @ self.student_weights.T.to(student[0].dtype)
        teacher_bC = teacher_bT @ self.teacher_weights.T.to(teacher_bT.dtype)
        return rows.mean_loss((student_bC - teacher_bC).square().mean(1))


def btune_options(student: LogMEStatistics, teachers: Sequence[LogMEStatistics]) -> dict[str, Any]:
    """The options of ``build_regularizer("btune", ...)``, from LogME statistics of the training split.

    ``student`` is about the features of the pretrained student before training, ``teachers`` one per teacher, in order.
    """
    return _options(student.solve()[1], teachers)


def _options(student_weights: Float64, teachers: Sequence[LogMEStatistics]) -> dict[str, Any]:
    solved = [statistics.solve() for statistics in teachers]
    return {
        "student_weights": student_weights,
        "teacher_weights": [weights for _, weights in solved],
        "scores": [score for score, _ in solved],
    }


def _check_widths(name: str, weights: Sequence[Tensor], num_classes: int, dims: Sequence[int]) -> None:
    expected = [(num_classes, dim) for dim in dims]
    found = [tuple(matrix.shape) for matrix in weights]
    if found != expected:
        raise ValueError(f"{name} must have shape(s) {expected}, (classes, width), got {found}.")
