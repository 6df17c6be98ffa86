"""Standard transfer learning: no regularizer."""

from torch import Tensor

from aft_ray.regularizers.base import Regularizer
from aft_ray.regularizers.distributed import Rows


class NoRegularizer(Regularizer):
    """No transfer: always zero, plain fine-tuning of the student."""

    name = "none"
    title = "standard transfer"
    colours = ("#5f6b7a", "#a3adba")
    betas = (0.0,)
    needs_teachers = False

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        return 0.0 * student[0].sum()  # zero, with a gradient to call backward on
