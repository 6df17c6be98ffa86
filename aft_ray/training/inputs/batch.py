"""The batch in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """One worker's rows of a global batch.

    inputs: the student's input as stored: (b, height, width, 3) uint8 images, (b, L) int32 token ids, (b, T) float32
    features; a tuple of two for a student with two towers.
    labels: (b,) int64, UNLABELED where there is none; (b, C) float32 of several labels or numbers, NaN where there is none.
    teacher_features: (b, T), the teachers side by side in the recipe's order; T is 0 without teachers.
    views: (b, 5) the part of each picture that the features were made of (see `models.views`); None where that is the whole.
    """

    inputs: torch.Tensor | tuple[torch.Tensor, ...]
    labels: torch.Tensor
    teacher_features: torch.Tensor
    views: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """`function` of every tensor."""
        inputs = tuple(map(function, self.inputs)) if isinstance(self.inputs, tuple) else function(self.inputs)
        views = None if self.views is None else function(self.views)
        return Batch(inputs, function(self.labels), function(self.teacher_features), views)

    def to(self, device: torch.device) -> Batch:
        """The same on `device`; from pinned memory without waiting for it."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def split(self, num_parts: int) -> list[Batch]:
        """At least one and at most `num_parts` parts of equal size, the last perhaps smaller, in order."""
        size = max(1, -(-len(self) // num_parts))
        starts = range(0, max(1, len(self)), size)
        return [self.map(lambda tensor, at=start: tensor[at : at + size]) for start in starts]  # type: ignore[misc]
