"""Distillation from the teachers' probes: a method of ours, the plain way to use them, not of AFT's paper.

The student's logits are drawn towards soft targets on all rows, labelled or not:

    prior + sum_k R2_k P_k / sum_k R2_k        over teachers with an R2 beyond chance

with P_k the predictions of teacher k's ridge probe and R2_k its leave-one-out R2. Classes: cross-entropy with the targets, which
are clipped from below at .01 and divided by their sum; at .1 / C for more than ten classes, so that clipping never adds more than
.1. Several labels: binary cross-entropy with the targets, clipped to .01 to .99. Numbers: squared difference.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from aft_ray.regularizers.base import Combine, Regularizer, Scope, StudentDim, check_choice, check_shape
from aft_ray.regularizers.distributed import Rows
from aft_ray.regularizers.fitted_probes import FittedProbes, fit_probes
from aft_ray.regularizers.fitting import FittingData
from aft_ray.regularizers.kernels import cosine_kernel
from aft_ray.regularizers.probe import Probe

Task: TypeAlias = Literal["classification", "multilabel", "regression"]
FLOOR, FLOOR_OF_ALL = 0.01, 0.1
"""Least probability of a class, and of all classes together."""


class ProbeKd(Regularizer):
    """Distillation of the teachers' predictions of the labels into the student's logits, with no parameters (ours)."""

    name = "probe_kd"
    title = "probe KD"
    colours = ("#5f7a00", "#b5d13c")
    betas = (0.25, 1.0, 4.0, 16.0)
    needs_logits = True

    def __init__(
        self,
        student_dim: StudentDim,
        teacher_dims: Sequence[int],
        *,
        probes: Sequence[Probe],
        task: Task = "classification",
        combine: Combine = "concat",
        towers: Sequence[int] | None = None,
        scope: Scope = "global",
    ) -> None:
        """``probes`` has one per teacher, or with ``combine="product"`` one for all; ``task`` is the kind of labels."""
        super().__init__(student_dim, teacher_dims, combine=combine, towers=towers, scope=scope)
        check_choice("task", task, Task)
        self.task: Task = task
        self.probes = FittedProbes(probes, [self.teacher_dim] if combine == "product" else self.teacher_dims)

    @classmethod
    def fitted_options(cls, data: FittingData) -> dict[str, Any]:
        return {"probes": fit_probes(data), "task": data.task}

    @property
    def is_off(self) -> bool:
        return self.probes.is_off

    def facts(self) -> dict[str, float]:
        return self.probes.facts(len(self.teacher_dims))

    def target_kernel(self, teacher_BT: Tensor) -> Tensor:
        """The kernel of its soft targets."""
        return cosine_kernel(self._targets(teacher_BT))

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        logits_bC = student[-1]
        check_shape("logits", logits_bC, self.probes.num_outputs)
        if self.is_off:
            return 0.0 * logits_bC.sum()
        targets_bC = self._targets(teacher_bT).to(logits_bC)
        if self.task == "classification":
            return rows.mean_loss(-(targets_bC * logits_bC.log_softmax(1)).sum(1))
        if self.task == "multilabel":
            return rows.mean_loss(binary_cross_entropy_with_logits(logits_bC, targets_bC, reduction="none").mean(1))
        return rows.mean_loss((logits_bC - targets_bC).square().mean(1))

    def _targets(self, teacher_bT: Tensor) -> Tensor:
        """The soft targets (b, C)."""
        whole = sum(self.probes.useful_r2)
        shares = [r2 / whole for r2 in self.probes.useful_r2]
        parts = [share * part for share, part in zip(shares, self.probes(teacher_bT), strict=True)]
        targets_bC = torch.stack(parts).sum(0) + self.probes.prior.to(teacher_bT)
        if self.task == "classification":
            floor = min(FLOOR, FLOOR_OF_ALL / self.probes.num_outputs)
            targets_bC = targets_bC.clamp_min(floor)
            return targets_bC / targets_bC.sum(1, keepdim=True)
        return targets_bC.clamp(FLOOR, 1 - FLOOR) if self.task == "multilabel" else targets_bC
