"""A student of image and text for laptops: the towers of `tiny:cnn` and `tiny:text`, and a head on their product."""

from __future__ import annotations

import torch

from aft_ray.models.images import ImageTransform
from aft_ray.models.students import tiny_cnn, tiny_text
from aft_ray.models.students.base import Inputs, Student, refuse
from aft_ray.models.students.product_head import ProductHead
from aft_ray.models.text import HashedWords, Tokens
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig


def transforms(config: StudentConfig) -> tuple[ImageTransform, HashedWords | Tokens]:
    if config.pretrained:
        raise InputError("tiny:pair has no published weights: leave out student.pretrained.")
    refuse(config, "gradient_checkpointing", why="tiny:pair")
    of_image, of_text = _of_towers(config)
    return *tiny_cnn.transforms(of_image), *tiny_text.transforms(of_text)


def _of_towers(config: StudentConfig) -> tuple[StudentConfig, StudentConfig]:
    """The configs of the picture's tower and of the text's, which may have a checkpoint's word vectors."""
    return config.model_copy(update={"max_length": None, "weights": None}), config.model_copy(
        update={"image_size": None}
    )


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    return TinyPair(config, num_outputs, for_inference=for_inference)


class TinyPair(Student):
    """Both towers' features, each 256 wide, the image's first."""

    axes = {"pixels": ("batch",), "ids": ("batch", "length")}

    def __init__(self, config: StudentConfig, num_outputs: int, *, for_inference: bool) -> None:
        super().__init__()
        self.transforms = image, _ = transforms(config)
        self.image = tiny_cnn.TinyCNN(image, num_outputs)
        self.text = tiny_text.TinyText(_of_towers(config)[1], num_outputs, for_inference=for_inference)
        del self.image.head, self.text.head
        self.feature_dim, self.num_outputs = (self.image.feature_dim, self.text.feature_dim), num_outputs
        self.head = ProductHead(self.image.feature_dim, self.text.feature_dim, num_outputs)

    def prepare(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        images, ids = inputs
        return *self.image.prepare(images), *self.text.prepare(ids)

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        pixels, ids = prepared
        features = self.image.features(pixels), self.text.features(ids)
        return self.head(*features), features
