"""A text student for laptops: half a million weights, a few seconds of training on one core.

Its words are hashed and learned; `student.weights` names a checkpoint of a language model whose word vectors it takes instead.
"""

from __future__ import annotations

import torch
from torch import nn

from aft_ray.models.students import word_vectors
from aft_ray.models.students.base import Inputs, Student, refuse, trimmed
from aft_ray.models.text import PADDING, HashedWords, Tokens
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig

LENGTH = 128
BUCKETS = 8192
EMBEDDING_DIM, WIDTH = 64, 128
WORDS_SEEN = 3
"""Neighbouring words under one filter."""


def transforms(config: StudentConfig) -> tuple[HashedWords | Tokens]:
    if config.pretrained:
        raise InputError("tiny:text has no published weights: leave out student.pretrained.")
    refuse(config, "image_size", "gradient_checkpointing", why="tiny:text")
    length = config.max_length or LENGTH
    if config.weights is None:
        return (HashedWords(length, BUCKETS),)
    word_vectors.num_words(config.weights)
    return (word_vectors.tokens(config.weights, length),)


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    return TinyText(config, num_outputs, for_inference=for_inference)


class TinyText(Student):
    """One convolution over embedded words, then the mean and the maximum of each filter over the text as 256 features.

    Padding is zero before the convolution and after the ReLU, so that it changes neither the sum nor the maximum.
    """

    axes = {"ids": ("batch", "length")}
    feature_dim: int

    def __init__(self, config: StudentConfig, num_outputs: int, *, for_inference: bool) -> None:
        super().__init__()
        self.transforms = transforms(config)
        self.embedding = embedding(config, for_inference=for_inference)
        self.convolution = nn.Conv1d(self.embedding.embedding_dim, WIDTH, WORDS_SEEN, padding=WORDS_SEEN // 2)
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


def embedding(config: StudentConfig, *, for_inference: bool) -> nn.Embedding:
    """Words to learn, or the frozen vectors of a checkpoint; trained ones of the same shape will be loaded for inference."""
    if config.weights is None:
        return nn.Embedding(BUCKETS, EMBEDDING_DIM)
    if for_inference:
        return nn.Embedding(word_vectors.num_words(config.weights), word_vectors.WIDTH).requires_grad_(False)
    return nn.Embedding.from_pretrained(word_vectors.word_vectors(config.weights))
