"""An exponential moving average of a student's weights and of its batch norm's statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from aft_ray.regularizers.distributed import copy_from_main


class Averages:
    """values: the averages by their names in the student's `state_dict`, float tensors alone."""

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.student, self.decay = student, decay
        self.values = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the optimizer's step `step`, counted from 0. Early averages are short: the first weights mean nothing."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), list(self._tensors().values()), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the student's weights and the averages. Every worker then has the main worker's statistics."""
        copy_from_main(self.values.values())
        for name, tensor in self._tensors().items():
            kept = tensor.clone()
            tensor.copy_(self.values[name])
            self.values[name].copy_(kept)

    def load(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, average in self.values.items():
            average.copy_(values[name])

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {name: t for name, t in self.student.state_dict().items() if t.is_floating_point()}
