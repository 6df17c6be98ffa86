"""Adaptive Feature Transfer (arXiv 2406.07337): compare the kernels of student and transformed teacher features.

    F (B, S)   student features                T (B, T)   teacher features, all teachers side by side
    gates      g = sigmoid(gate_logits), T of them, learned with the student; T * g drops features that the task does not use
    unit       centre over the batch, then divide each row by its norm
    K = unit(F) unit(F)'        L = unit(T * g) unit(T * g)'        both (B, B)
    value      sqrt(mean((K - L)^2) + 1e-8)

Gates scale columns, so centring goes through them, and centred features C give L = C diag(g^2) C' over both rows' norms.
K does not change when F is rotated or scaled, so student and teachers need neither a common width nor a common basis.
The variants change one line: `aft_rbf` has another kernel, `aft_dense` a matrix in place of the gates, `kkd` a matrix on the
student and nothing on the teachers, `aft_no_kernel` features in place of kernels, `aft_probe` more teacher features.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from aft_ray.regularizers import kernels
from aft_ray.regularizers.base import Combine, Regularizer, Scope, StudentDim, check_choice
from aft_ray.regularizers.distributed import Rows

Normalize: TypeAlias = Literal["none", "per_teacher"]


class KernelRegularizer(Regularizer):
    """A regularizer that compares two kernels. Its value is their distance, logged as ``kernel_distance`` too."""

    betas: ClassVar[tuple[float, ...]] = (0.02, 1.25, 5.0, 20.0)  # a student learns few rows by heart

    _last_distance: Tensor | None = None

    def diagnostics(self) -> dict[str, Tensor]:
        return {} if self._last_distance is None else {"kernel_distance": self._last_distance}

    def _distance(self, student_bB: Tensor, teacher_bB: Tensor, rows: Rows) -> Tensor:
        distance = kernels.kernel_distance(student_bB, teacher_bB, rows.total_loss)
        self._last_distance = distance.detach()
        return distance


class GatedRegularizer(KernelRegularizer):
    """A `KernelRegularizer` with a learned gate on every dimension of the teacher features."""

    def __init__(
        self,
        student_dim: StudentDim,
        teacher_dims: Sequence[int],
        *,
        combine: Combine = "concat",
        towers: Sequence[int] | None = None,
        normalize: Normalize = "none",
        learn_gates: bool = True,
        scope: Scope = "global",
    ) -> None:
        """``normalize="per_teacher"`` first gives every teacher the same spread over the batch, whatever its norms."""
        super().__init__(student_dim, teacher_dims, combine=combine, towers=towers, scope=scope)
        check_choice("normalize", normalize, Normalize)
        self.normalize: Normalize = normalize
        self.gate_logits = nn.Parameter(torch.zeros(self.teacher_dim), requires_grad=learn_gates)

    def diagnostics(self) -> dict[str, Tensor]:
        """Adds the mean and the standard deviation of each teacher's gates, as of now."""
        scalars = super().diagnostics()
        for k, gates in enumerate(self.gate_logits.detach().sigmoid().split(self.teacher_dims)):
            scalars[f"gate_mean/{k}"] = gates.mean()
            scalars[f"gate_std/{k}"] = gates.std(correction=0)
        return scalars

    def _gated(self, teacher_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T), a constant, and their gates (T,)."""
        if self.normalize == "per_teacher":
            teacher_BT = kernels.equalise_spread(teacher_BT, self.teacher_dims)
        gates_T = self.gate_logits.sigmoid()
        dtype = torch.promote_types(teacher_BT.dtype, gates_T.dtype)
        return teacher_BT.to(dtype), gates_T.to(dtype)


class Aft(GatedRegularizer):
    """Adaptive Feature Transfer: distance of the linear kernels of student and gated teacher features.

    ``combine="product"`` is for models with one feature vector per tower: the features compared are the flattened outer
    products over towers, on either side, which `kernels.product_kernel` never forms. Teachers of one tower are side by side.
    """

    name = "aft"
    title = "AFT"
    colours = ("#0072b2", "#56b4e9")

    @classmethod
    def recipe_options(cls, num_teachers: int) -> dict[str, Any]:
        """Several teachers get the same say, whatever their norms; the paper's value is ``normalize="none"``."""
        return {"normalize": "per_teacher"} if num_teachers > 1 else {}

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        *student_BS, teacher_BT = rows.gather_together(*student, teacher_bT)
        if self.combine == "product":
            student_bB = kernels.product_kernel(student_BS, rows.own, rows.gather)
        else:
            student_bB = kernels.cosine_kernel(student_BS[0], rows.own)
        return self._distance(student_bB, self._teacher_kernel(teacher_BT, rows), rows)

    def target_kernel(self, teacher_BT: Tensor) -> Tensor:
        return self._teacher_kernel(teacher_BT, Rows((len(teacher_BT),), 0))

    def _teacher_kernel(self, teacher_BT: Tensor, rows: Rows) -> Tensor:
        teacher_BT, gates_T = self._gated(teacher_BT)
        if self.combine == "product":
            parts, gates = self.by_tower(teacher_BT), self.by_tower(gates_T)
            return kernels.product_kernel(parts, rows.own, rows.gather, gates)
        return kernels.cosine_kernel(teacher_BT, rows.own, gates_T)
