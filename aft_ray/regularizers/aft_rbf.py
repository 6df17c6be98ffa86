"""AFT with a radial basis function kernel, an ablation of its paper."""

from collections.abc import Sequence

from torch import Tensor

from aft_ray.regularizers import kernels
from aft_ray.regularizers.aft import GatedRegularizer, Normalize
from aft_ray.regularizers.base import Scope
from aft_ray.regularizers.distributed import Rows


class AftRbf(GatedRegularizer):
    """AFT with the kernel exp(-||x - y||^2) of centred, normalised features in place of the linear one."""

    name = "aft_rbf"
    title = "AFT, RBF kernel"
    colours = ("#4b53bc", "#a3a8ff")

    def __init__(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        *,
        normalize: Normalize = "none",
        learn_gates: bool = True,
        scope: Scope = "global",
    ) -> None:
        super().__init__(student_dim, teacher_dims, normalize=normalize, learn_gates=learn_gates, scope=scope)

    def target_kernel(self, teacher_BT: Tensor) -> Tensor:
        """The linear one, for comparison with other methods."""
        teacher_BT, gates_T = self._gated(teacher_BT)
        return kernels.cosine_kernel(teacher_BT, None, gates_T)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        student_BS, teacher_BT = rows.gather_together(student[0], teacher_bT)
        teacher_BT, gates_T = self._gated(teacher_BT)
        student_bB = kernels.rbf_kernel(student_BS, rows.own)
        return self._distance(student_bB, kernels.rbf_kernel(teacher_BT, rows.own, gates_T), rows)
