"""Regularizers of one's own, for the study `ours`: do our two methods add up?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from aft_ray.regularizers.aft_probe import AftProbe
from aft_ray.regularizers.base import StudentDim
from aft_ray.regularizers.distributed import Rows
from aft_ray.regularizers.fitting import FittingData
from aft_ray.regularizers.probe import Probe
from aft_ray.regularizers.probe_kd import ProbeKd, Task


class Both(AftProbe):
    """AFT with probes, plus probe KD by a fixed share: about the ratio of the strengths that validation takes for each alone."""

    name = ""
    title = "both of ours"
    needs_logits = True

    def __init__(
        self,
        student_dim: StudentDim,
        teacher_dims: Sequence[int],
        *,
        probes: Sequence[Probe],
        task: Task = "classification",
        share: float = 0.2,
    ) -> None:
        super().__init__(student_dim, teacher_dims, probes=probes)
        self.share = share
        self.distillation = ProbeKd(student_dim, teacher_dims, probes=probes, task=task)

    @classmethod
    def fitted_options(cls, data: FittingData) -> dict[str, Any]:
        return ProbeKd.fitted_options(data)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        kernels = super()._value(student[:1], teacher_bT, rows)
        return kernels + self.share * self.distillation._value(student, teacher_bT, rows)
