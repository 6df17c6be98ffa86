"""AFT towards the teachers' knowledge of the labels: a method of ours, not of AFT's paper.

AFT's target is the kernel of the teachers' raw features. It shows the labels only as far as they dominate the variance, and
nothing closes the gates of a teacher that knows nothing. A ridge probe of each teacher k, fitted in closed form to the labelled
rows before training, mends both. The target's features are two blocks a teacher,

    [ w * g_k * G_k ,  h_k * P_k ]

G_k the teacher's features and P_k (B, C) its probe's predictions, each centred and scaled to a root-mean-square row norm of 1
over the batch; w = 1/2; g_k and h_k learned gates that start at sqrt(R2_k) / 2, with the probe's leave-one-out R2_k. Gates of a
teacher with an R2 within chance stay at 0. Everything else is AFT.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aft_ray.regularizers import kernels
from aft_ray.regularizers.aft import Aft
from aft_ray.regularizers.base import Combine, Scope, StudentDim
from aft_ray.regularizers.distributed import Rows
from aft_ray.regularizers.fitted_probes import FittedProbes, fit_probes
from aft_ray.regularizers.fitting import FittingData
from aft_ray.regularizers.probe import Probe


class AftProbe(Aft):
    """AFT with each teacher's predictions of the labels in its target; leaves out teachers that know nothing (ours).

    With ``combine="product"`` the raw block is the outer product of the towers' teachers, and one probe sees all teachers side by
    side. It adds up the knowledge of each, misses interactions, and leaves out all teachers or none.
    """

    name = "aft_probe"
    title = "AFT with probes"
    colours = ("#c4314b", "#ff8fa0")

    def __init__(
        self,
        student_dim: StudentDim,
        teacher_dims: Sequence[int],
        *,
        probes: Sequence[Probe],
        raw_weight: float = 0.5,
        combine: Combine = "concat",
        towers: Sequence[int] | None = None,
        learn_gates: bool = True,
        scope: Scope = "global",
    ) -> None:
        """``probes`` has one of each teacher, or with ``combine="product"`` one of all; ``raw_weight`` is w."""
        super().__init__(
            student_dim,
            teacher_dims,
            combine=combine,
            towers=towers,
            normalize="per_teacher",
            learn_gates=learn_gates,
            scope=scope,
        )
        if raw_weight < 0:
            raise ValueError(f"raw_weight must be >= 0, got {raw_weight}.")
        self.raw_weight = raw_weight
        self.probes = FittedProbes(probes, [self.teacher_dim] if combine == "product" else self.teacher_dims)
        starts = [math.sqrt(r2) / 2 for r2 in self.probes.useful_r2]
        raw_starts = [math.sqrt(start) for start in starts] if combine == "product" else starts  # two are multiplied
        self.gate_logits = self._gates(raw_starts, self.probes.dims, learn_gates)
        self.probe_gate_logits = self._gates(starts, [self.probes.num_outputs] * len(starts), learn_gates)

    @classmethod
    def recipe_options(cls, num_teachers: int) -> dict[str, Any]:
        return {}

    @classmethod
    def fitted_options(cls, data: FittingData) -> dict[str, Any]:
        return {"probes": fit_probes(data)}

    @property
    def is_off(self) -> bool:
        return self.probes.is_off

    def facts(self) -> dict[str, float]:
        return self.probes.facts(len(self.teacher_dims))

    def diagnostics(self) -> dict[str, Tensor]:
        """Adds the mean of each probe's gates."""
        parts = self.probe_gate_logits.detach().sigmoid().split(self.probes.num_outputs)
        return super().diagnostics() | {f"probe_gate_mean/{k}": gates.mean() for k, gates in enumerate(parts)}

    def _gates(self, starts: Sequence[float], dims: Sequence[int], learned: bool) -> nn.Parameter:
        """Logits of gates that start there; -infinity, which has no gradient, keeps a gate at 0."""
        logits = torch.logit(torch.tensor(starts, dtype=torch.get_default_dtype()))
        return nn.Parameter(logits.repeat_interleave(torch.tensor(dims)), requires_grad=learned and not self.is_off)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        if self.is_off:
            return 0.0 * torch.cat(student, 1).sum()
        return super()._value(student, teacher_bT, rows)

    def _teacher_kernel(self, teacher_BT: Tensor, rows: Rows) -> Tensor:
        raw_BT, gates_T = self._gated(teacher_BT)
        predicted = self.probes(teacher_BT)
        predicted_BC = kernels.equalise_spread(torch.cat(predicted, 1), [self.probes.num_outputs] * len(predicted))
        probe_gates_C = self.probe_gate_logits.sigmoid().to(gates_T)
        if self.combine == "product":
            parts, gates = self.by_tower(raw_BT), self.by_tower(gates_T)
            return kernels.product_kernel(
                parts, rows.own, rows.gather, gates, beside_BD=predicted_BC * probe_gates_C, weight=self.raw_weight
            )
        target_BD = torch.cat([self.raw_weight * raw_BT, predicted_BC], 1)
        return kernels.cosine_kernel(target_BD, rows.own, torch.cat([gates_T, probe_gates_C]))
