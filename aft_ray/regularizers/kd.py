"""Feature distillation, a baseline of AFT's paper."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aft_ray.regularizers.base import Combine, Regularizer, Scope, StudentDim
from aft_ray.regularizers.distributed import Rows


class Kd(Regularizer):
    """Feature distillation: mean squared error of a linear prediction of the teacher from the student features.

    With ``combine="product"`` there is one such prediction per tower, and their errors are averaged.
    """

    name = "kd"
    title = "KD"
    colours = ("#d55e00", "#ff9150")

    def __init__(
        self,
        student_dim: StudentDim,
        teacher_dims: Sequence[int],
        *,
        combine: Combine = "concat",
        towers: Sequence[int] | None = None,
        scope: Scope = "global",
    ) -> None:
        super().__init__(student_dim, teacher_dims, combine=combine, towers=towers, scope=scope)
        self.projection: nn.Module
        if combine == "product":
            if len(self.student_dims) != len(self.tower_dims):
                raise ValueError(
                    f"kd with combine='product' needs one teacher per tower of the student, or 'towers', got "
                    f"student_dim={student_dim} and teacher_dims={list(teacher_dims)}."
                )
            self.projection = nn.ModuleList(map(nn.Linear, self.student_dims, self.tower_dims))
        else:
            self.projection = nn.Linear(self.student_dims[0], self.teacher_dim)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        if isinstance(self.projection, nn.ModuleList):
            triples = zip(self.projection, student, self.by_tower(teacher_bT), strict=True)
            errors = [(predict(features) - target).square().mean(1) for predict, features, target in triples]
            return rows.mean_loss(torch.stack(errors).mean(0))
        return rows.mean_loss((self.projection(student[0]) - teacher_bT).square().mean(1))
