"""timm image models as students."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.data import resolve_data_config

from aft_ray.config import InputError, StudentConfig
from aft_ray.images import ImageTransform, normalise
from aft_ray.students.base import Student
from aft_ray.weights import as_timm, load_state_dict, locate


def transform(config: StudentConfig) -> ImageTransform:
    name = config.model.partition(":")[2]
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"timm knows no model '{name}'.")
    if config.weights is not None:
        locate(config.weights)
    published = timm.get_pretrained_cfg(name)
    data = resolve_data_config(pretrained_cfg=published.to_dict() if published else {}, verbose=False)
    return ImageTransform.from_data_config(data, config.image_size)


def build(config: StudentConfig, num_classes: int, *, for_inference: bool) -> Student:
    return TimmStudent(config, num_classes, for_inference=for_inference)


class TimmStudent(Student):
    """A timm model with a fresh linear head; features are what the classifier takes."""

    def __init__(self, config: StudentConfig, num_classes: int, *, for_inference: bool) -> None:
        super().__init__()
        self.transform = transform(config)
        published = config.pretrained and config.weights is None and not for_inference
        name = config.model.partition(":")[2]
        # Transformers have position embeddings of one size and resample them; convolutions take any size as it is.
        fixed = config.image_size is not None and getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
        extra: dict[str, Any] = {"img_size": config.image_size} if fixed else {}
        self.backbone = timm.create_model(name, pretrained=published, num_classes=0, **extra)
        if config.weights is not None and not for_inference:
            state = as_timm(load_state_dict(config.weights), self.backbone.state_dict())
            self.backbone.load_state_dict({key: state[key] for key in self.backbone.state_dict()})
        size = self.transform.size
        with torch.no_grad():
            self.feature_dim = self.backbone.eval()(torch.zeros(1, 3, size, size)).shape[1]
        self.num_classes = num_classes
        self.head = torch.nn.Linear(self.feature_dim, num_classes)
        self.train()

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone(normalise(inputs, self.transform))
        return self.head(features), features
