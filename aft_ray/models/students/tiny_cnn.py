"""A convolutional student for laptops: 26 thousand weights, a few seconds of training on one core."""

from __future__ import annotations

import torch
from torch import nn

from aft_ray.models.images import ImageTransform, normalise
from aft_ray.models.students.base import Inputs, Student, refuse
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig

IMAGE_SIZE = 28
# (kernel side, stride, channels out) of each block.
BLOCKS = ((5, 2, 16), (3, 1, 32), (3, 2, 64))
POOLED_SIDE = 2


def transforms(config: StudentConfig) -> tuple[ImageTransform]:
    if config.pretrained or config.weights:
        raise InputError("tiny:cnn has no published weights: leave out student.pretrained and student.weights.")
    refuse(config, "max_length", "gradient_checkpointing", why="tiny:cnn")
    return (ImageTransform(config.image_size or IMAGE_SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),)


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    return TinyCNN(*transforms(config), num_outputs)


class TinyCNN(Student):
    """Three convolutions, then averages over the four quarters of the picture as 256 features.

    Group normalisation sees one sample at a time, so several workers compute exactly the same as one on the whole batch.
    """

    axes = {"pixels": ("batch",)}
    feature_dim: int

    def __init__(self, transform: ImageTransform, num_outputs: int) -> None:
        super().__init__()
        self.transform, self.transforms = transform, (transform,)
        layers: list[nn.Module] = []
        channels = 3
        for side, stride, width in BLOCKS:
            layers += [
                nn.Conv2d(channels, width, side, stride, padding=side // 2, bias=False),
                nn.GroupNorm(8, width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(POOLED_SIDE), nn.Flatten())
        self.feature_dim, self.num_outputs = channels * POOLED_SIDE**2, num_outputs
        self.head = nn.Linear(self.feature_dim, num_outputs)
        self.to(memory_format=torch.channels_last)  # the layout of the images; halves the time of a step on a CPU

    def prepare(self, inputs: Inputs) -> tuple[torch.Tensor]:
        assert isinstance(inputs, torch.Tensor)
        return (normalise(inputs, self.transform),)

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(*prepared)
        return self.head(features), features

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.backbone(pixels)
        return features
