"""Students of a user's own, as recipes name them: `tests.helpers.own_students:Patches`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aft_ray.models.images import ImageTransform, normalise
from aft_ray.models.students import Student
from aft_ray.models.text import HashedWords
from aft_ray.models.weights import load_state_dict
from aft_ray.recipe.sections import StudentConfig

IMAGE = ImageTransform(16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
WORDS = HashedWords(length=6, buckets=50)


class Patches(Student):
    """A linear layer over patches. Options: `width`; `batch_norm`."""

    axes = {"pixels": ("batch",)}

    @classmethod
    def describe(cls, config: StudentConfig) -> tuple[ImageTransform]:
        return (IMAGE,)

    def __init__(self, config: StudentConfig, num_outputs: int) -> None:
        super().__init__()
        width = config.options.get("width", 4)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 8, stride=8), nn.ReLU()]
        if config.options.get("batch_norm"):
            layers.insert(1, nn.BatchNorm2d(width))
        self.backbone = nn.Sequential(*layers, nn.Flatten())
        if config.weights is not None:
            self.backbone.load_state_dict(load_state_dict(config.weights))
        self.head = nn.Linear(4 * width, num_outputs)

    def prepare(self, inputs: Any) -> tuple[torch.Tensor]:
        return (normalise(inputs, IMAGE),)

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone(*prepared)
        return self.head(features), features


class Pair(Student):
    """Mean brightness and the words of a text, without a name for ONNX."""

    @classmethod
    def describe(cls, config: StudentConfig) -> tuple[ImageTransform, HashedWords]:
        return (IMAGE, WORDS)

    def __init__(self, config: StudentConfig, num_outputs: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(50, 5)
        self.head = nn.Bilinear(3, 5, num_outputs)

    def prepare(self, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        images, ids = inputs
        return images.float().mean((1, 2)), ids.long().clamp(min=0)

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        image, ids = prepared
        features = image, self.words(ids)
        return self.head(*features), features


class Described(Student):
    """Describes nothing that a sample has."""

    @classmethod
    def describe(cls, config: StudentConfig) -> Any:
        return config.options.get("as")

    def prepare(self, inputs: Any) -> tuple[torch.Tensor, ...]:
        return (inputs,)

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return prepared[0], prepared[0]


class Headless(Patches):
    """Gives its features as logits."""

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone(*prepared)
        return features, features


class Silent(Student):
    """Lacks `describe`."""

    prepare = run = Patches.prepare  # type: ignore[assignment]


class Stranger:
    """Is no Student."""

    describe = Patches.describe
