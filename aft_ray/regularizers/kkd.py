"""Knowledge distillation on kernels, a baseline of AFT's paper."""

from collections.abc import Sequence

from torch import Tensor, nn

from aft_ray.regularizers import kernels
from aft_ray.regularizers.aft import KernelRegularizer
from aft_ray.regularizers.base import Scope
from aft_ray.regularizers.distributed import Rows


class KernelKd(KernelRegularizer):
    """Knowledge distillation on kernels: a learned map of the student features, teacher features as they are."""

    name = "kkd"
    title = "kernel KD"
    colours = ("#8a4b2a", "#d6a184")

    def __init__(self, student_dim: int, teacher_dims: Sequence[int], *, scope: Scope = "global") -> None:
        super().__init__(student_dim, teacher_dims, scope=scope)
        self.projection = nn.Linear(student_dim, student_dim)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        student_BS, teacher_BT = rows.gather_together(self.projection(student[0]), teacher_bT)
        student_bB = kernels.cosine_kernel(student_BS, rows.own)
        return self._distance(student_bB, kernels.cosine_kernel(teacher_BT, rows.own), rows)
