"""A text student for laptops: half a million weights, no vocabulary to load, a few seconds of training on one core."""

from __future__ import annotations

import torch
from torch import nn

from aft_ray.models.students.base import Inputs, Student, refuse, trimmed
from aft_ray.models.text import PADDING, HashedWords
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig

LENGTH = 128
BUCKETS = 8192
EMBEDDING_DIM, WIDTH = 64, 128
WORDS_SEEN = 3
"""Neighbouring words under one filter."""


def transforms(config: StudentConfig) -> tuple[HashedWords]:
    if config.pretrained or config.weights:
        raise InputError("tiny:text has no published weights: leave out student.pretrained and student.weights.")
    refuse(config, "image_size", "gradient_checkpointing", why="tiny:text")
    return (HashedWords(config.max_length or LENGTH, BUCKETS),)


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    return TinyText(*transforms(config), num_outputs)


class TinyText(Student):
    """One convolution over embedded words, then the mean and the maximum of each filter over the text as 256 features.

    Padding is zero before the convolution and after the ReLU, so that it changes neither the sum nor the maximum.
    """

    axes = {"ids": ("batch", "length")}
    feature_dim: int

    def __init__(self, transform: HashedWords, num_outputs: int) -> None:
        super().__init__()
        self.transforms = (transform,)
        self.embedding = nn.Embedding(BUCKETS, EMBEDDING_DIM)
        self.convolution = nn.Conv1d(EMBEDDING_DIM, WIDTH, WORDS_SEEN, padding=WORDS_SEEN // 2)
        self.feature_dim, self.num_outputs = 2 * WIDTH, num_outputs
        self.head = nn.Linear(self.feature_dim, num_outputs)

    def prepare(self, inputs: Inputs) -> tuple[torch.Tensor]:
        assert isinstance(inputs, torch.Tensor)
        return (trimmed(inputs),)

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(*prepared)
        return self.head(features), features

    def features(self, ids_BL: torch.Tensor) -> torch.Tensor:
        mask_BL1 = (ids_BL != PADDING).unsqueeze(-1)
        words_BLE = self.embedding(ids_BL.clamp(min=0)) * mask_BL1
        found_BLW = self.convolution(words_BLE.transpose(1, 2)).relu().transpose(1, 2) * mask_BL1
        mean_BW = found_BLW.sum(1) / mask_BL1.sum(1).clamp(min=1)
        return torch.cat([mean_BW, found_BLW.amax(1)], dim=1)
