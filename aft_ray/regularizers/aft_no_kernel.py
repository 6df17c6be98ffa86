"""AFT on features instead of kernels, an ablation of its paper."""

from collections.abc import Sequence

from torch import Tensor, nn

from aft_ray.regularizers.base import Regularizer, Scope
from aft_ray.regularizers.distributed import Rows


class AftNoKernel(Regularizer):
    """AFT without the kernel: mean squared difference of centred student and linearly mapped teacher features."""

    name = "aft_no_kernel"
    title = "AFT, no kernel"
    colours = ("#7d3fb0", "#c79bf0")

    def __init__(self, student_dim: int, teacher_dims: Sequence[int], *, scope: Scope = "global") -> None:
        super().__init__(student_dim, teacher_dims, scope=scope)
        self.projection = nn.Linear(self.teacher_dim, student_dim)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        difference_bS = student[0] - self.projection(teacher_bT)  # centring is linear, so once on the difference
        return rows.mean_loss((difference_bS - rows.mean(difference_bS)).square().mean(1))
