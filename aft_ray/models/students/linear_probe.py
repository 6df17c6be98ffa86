"""A linear head on the teachers' features: shows how much they know about the task without a student."""

from __future__ import annotations

import torch
from torch import nn

from aft_ray.models.students.base import Inputs, Student, refuse
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig


def transforms(config: StudentConfig) -> tuple[()]:
    keys = ("pretrained", "weights", "image_size", "max_length", "gradient_checkpointing")
    refuse(config, *keys, why="linear_probe, which is one layer")
    return ()


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    transforms(config)
    if not teacher_dims:
        raise InputError("Student 'linear_probe' reads teachers' features: name at least one entry in 'teachers'.")
    return LinearProbe(sum(teacher_dims), num_outputs)


class LinearProbe(Student):
    """A linear layer on all teachers' features, which are also the student's features."""

    axes = {"features": ("batch",)}

    def __init__(self, feature_dim: int, num_outputs: int) -> None:
        super().__init__()
        self.transforms = ()
        self.feature_dim, self.num_outputs = feature_dim, num_outputs
        self.head = nn.Linear(feature_dim, num_outputs)

    def prepare(self, inputs: Inputs) -> tuple[torch.Tensor]:
        assert isinstance(inputs, torch.Tensor)
        return (inputs.float(),)

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (features,) = prepared
        return self.head(features), features
