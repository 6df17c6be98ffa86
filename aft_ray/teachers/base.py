"""What every teacher is: a description that needs neither torch nor weights, and a frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from aft_ray.images import ImageTransform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TeacherDescription:
    """What a teacher eats and what its features depend on.

    transform: how an image becomes the teacher's input; None for text.
    fingerprint: everything that changes the features' values, as plain JSON values.
    """

    modality: Literal["image", "text"]
    transform: ImageTransform | None
    fingerprint: dict[str, Any]


class Teacher(Protocol):
    """A frozen model. `feature_dim` is asked of the model, never tabulated."""

    feature_dim: int

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        """(n, feature_dim) float32 on the CPU, for (n, size, size, 3) uint8 images or n texts."""
        ...
