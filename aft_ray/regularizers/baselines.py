"""The methods that the paper compares with and that add up over rows: none, feature KD, B-Tuning, factor transfer.

Each value is a mean over the rows of the batch, so workers exchange nothing but that mean.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from aft_ray.regularizers.autoencoder import FeatureEncoder
from aft_ray.regularizers.base import Combine, Regularizer, Scope, StudentDim
from aft_ray.regularizers.distributed import Rows
from aft_ray.regularizers.logme import LogMEStatistics

TEMPERATURE = 0.1
"""B-Tuning weighs teachers by softmax(score / 0.1)."""


class NoRegularizer(Regularizer):
    """No transfer: always zero, plain fine-tuning of the student."""

    needs_teachers = False

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        return 0.0 * student[0].sum()  # zero, with a gradient to call backward on


class Kd(Regularizer):
    """Feature distillation: mean squared error of a linear prediction of the teacher from the student features.

    With ``combine="product"`` there is one such prediction per modality, and their errors are averaged.
    """

    def __init__(
        self,
        student_dim: StudentDim,
        teacher_dims: Sequence[int],
        *,
        combine: Combine = "concat",
        scope: Scope = "global",
    ) -> None:
        super().__init__(student_dim, teacher_dims, combine=combine, scope=scope)
        self.projection: nn.Module
        if combine == "product":
            if len(self.student_dims) != len(self.teacher_dims):
                raise ValueError(
                    f"kd with combine='product' needs one teacher per student modality, got student_dim={student_dim} and "
                    f"teacher_dims={list(teacher_dims)}."
                )
            self.projection = nn.ModuleList(map(nn.Linear, self.student_dims, self.teacher_dims))
        else:
            self.projection = nn.Linear(self.student_dims[0], self.teacher_dim)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        if isinstance(self.projection, nn.ModuleList):
            parts_bT = teacher_bT.split(self.teacher_dims, dim=1)
            triples = zip(self.projection, student, parts_bT, strict=True)
            errors = [(predict(features) - target).square().mean(1) for predict, features, target in triples]
            return rows.mean_loss(torch.stack(errors).mean(0))
        return rows.mean_loss((self.projection(student[0]) - teacher_bT).square().mean(1))


class FactorTransfer(Regularizer):
    """Factor transfer: L1 distance of the normalised translation of student features and teacher codes.

    The codes are ``encoder(teacher_features)``, from `fit_encoder`; without an encoder, the teacher features themselves.
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        *,
        encoder: FeatureEncoder | None = None,
        scope: Scope = "global",
    ) -> None:
        super().__init__(student_dim, teacher_dims, scope=scope)
        if encoder is not None and encoder.teacher_dims != self.teacher_dims:
            raise ValueError(
                f"encoder must be fitted to teachers of widths {list(self.teacher_dims)}, got {list(encoder.teacher_dims)}."
            )
        self.encoder = encoder
        code_dim = self.teacher_dim if encoder is None else encoder.code_dim
        self.translator = nn.Sequential(
            nn.Linear(student_dim, student_dim),
            nn.ReLU(),
            nn.Linear(student_dim, code_dim),
            nn.ReLU(),
            last := nn.Linear(code_dim, code_dim),
        )
        nn.init.zeros_(
            last.weight
        )  # its bias keeps the usual initialisation: with both zero nothing could be normalised

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        codes_bT = teacher_bT if self.encoder is None else self.encoder(teacher_bT)
        return rows.mean_loss((normalize(self.translator(student[0])) - normalize(codes_bT)).abs().sum(1))


class BTuning(Regularizer):
    """B-Tuning: mean squared difference of LogME predictions from student and from weighted teacher features."""

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
        shares_K = (torch.as_tensor(scores, dtype=weights_CT[0].dtype) / TEMPERATURE).softmax(0)
        self.register_buffer("student_weights", weights_CS)
        self.register_buffer(
            "teacher_weights",
            torch.cat([share * weights for share, weights in zip(shares_K, weights_CT, strict=True)], 1),
        )

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        student_bC = student[0] @ self.student_weights.T.to(student[0].dtype)
        teacher_bC = teacher_bT @ self.teacher_weights.T.to(teacher_bT.dtype)
        return rows.mean_loss((student_bC - teacher_bC).square().mean(1))


def btune_options(student: LogMEStatistics, teachers: Sequence[LogMEStatistics]) -> dict[str, Any]:
    """What ``build_regularizer("btune", ...)`` needs, from LogME statistics of the training split.

    ``student`` is about the features of the pretrained student before training, ``teachers`` one per teacher, in order.
    """
    solved = [statistics.solve() for statistics in teachers]
    return {
        "student_weights": student.solve()[1],
        "teacher_weights": [weights for _, weights in solved],
        "scores": [score for score, _ in solved],
    }


def _check_widths(name: str, weights: Sequence[Tensor], num_classes: int, dims: Sequence[int]) -> None:
    expected = [(num_classes, dim) for dim in dims]
    found = [tuple(matrix.shape) for matrix in weights]
    if found != expected:
        raise ValueError(f"{name} must have shape(s) {expected}, (classes, width), got {found}.")
