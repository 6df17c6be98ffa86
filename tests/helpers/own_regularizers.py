"""A method of the user's own, named `tests.helpers.own_regularizers:Means`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aft_ray.regularizers import FittingData, Regularizer
from aft_ray.regularizers.distributed import Rows


class Means(Regularizer):
    """Squared distance of a map of the student features from the teachers' mean features, fitted before training."""

    title = "means"
    betas = (0.1, 0.2, 0.4, 0.8)

    def __init__(self, student_dim: int, teacher_dims: Sequence[int], *, means: np.ndarray, power: int = 2) -> None:
        super().__init__(student_dim, teacher_dims)
        if power not in (1, 2):
            raise ValueError(f"power must be 1 or 2, got {power}.")
        self.power, self.projection = power, nn.Linear(student_dim, self.teacher_dim)
        self.register_buffer("means", torch.as_tensor(means, dtype=torch.float32))

    @classmethod
    def fitted_options(cls, data: FittingData) -> dict[str, Any]:
        parts = [features for features, _ in data.teacher_rows(range(len(data.teacher_dims)))]
        return {"means": np.concatenate(parts).mean(0)}

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        return rows.mean_loss((self.projection(student[0]) - self.means).abs().pow(self.power).mean(1))
