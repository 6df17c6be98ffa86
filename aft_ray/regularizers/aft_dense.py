"""AFT with a dense matrix, an ablation of its paper."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aft_ray.regularizers import kernels
from aft_ray.regularizers.aft import KernelRegularizer
from aft_ray.regularizers.base import Scope
from aft_ray.regularizers.distributed import Rows


class AftDense(KernelRegularizer):
    """AFT with a learned T x T matrix on the teacher features in place of the gates."""

    name = "aft_dense"
    title = "AFT, dense matrix"
    colours = ("#00798a", "#4cc3d4")

    def __init__(self, student_dim: int, teacher_dims: Sequence[int], *, scope: Scope = "global") -> None:
        super().__init__(student_dim, teacher_dims, scope=scope)
        self.projection = nn.Parameter(torch.randn(self.teacher_dim, self.teacher_dim) / self.teacher_dim**0.5)

    def target_kernel(self, teacher_BT: Tensor) -> Tensor:
        return kernels.cosine_kernel(teacher_BT @ self.projection)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        student_BS, teacher_BT = rows.gather_together(student[0], teacher_bT @ self.projection)
        student_bB = kernels.cosine_kernel(student_BS, rows.own)
        return self._distance(student_bB, kernels.cosine_kernel(teacher_BT, rows.own), rows)
