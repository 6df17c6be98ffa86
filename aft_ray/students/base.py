"""What every student is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from aft_ray.images import ImageTransform


class Student(nn.Module, ABC):
    """A trainable model with a linear head.

    transform: how an image becomes its input. feature_dim: width S of the features. num_classes: width C of the logits.
    """

    transform: ImageTransform
    feature_dim: int
    num_classes: int

    @abstractmethod
    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C) and features (B, S), the input of the last layer, from (B, height, width, 3) uint8 images."""
