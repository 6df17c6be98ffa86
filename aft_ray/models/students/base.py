"""The base of every student, and how a class of your own becomes one.

A recipe names it as `module:Class`. A student on patches of a scan, say, in `my_lab/students.py`:

    TRANSFORM = ImageTransform(96, mean=(0.7, 0.6, 0.7), std=(0.2, 0.2, 0.2))

    class Patches(Student):
        axes = {"pixels": ("batch",)}  # for ONNX alone

        @classmethod
        def describe(cls, config):
            return (TRANSFORM,)

        def __init__(self, config, num_outputs):
            super().__init__()
            self.backbone = PatchNet(**config.options)
            if config.weights is not None:
                self.backbone.load_state_dict(load_state_dict(config.weights))
            self.head = nn.Linear(384, num_outputs)

        def prepare(self, inputs):
            return (normalise(inputs, TRANSFORM),)

        def run(self, pixels):
            features = self.backbone(pixels)
            return self.head(features), features

with `student: {model: "my_lab.students:Patches", options: {depth: 6}}`. `describe` returns how a sample becomes an input, one
transform for images, one for texts, or both; it is asked often, and without building the model. A run keeps the weights, not
the code: `load_student` imports the same class again. The last layer must be named `head` for settings that treat it apart, such
as `train.head_learning_rate`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeAlias

import torch
from torch import nn

from aft_ray.models.images import ImageTransform
from aft_ray.models.text import PADDING, TextTransform
from aft_ray.models.weights import check_fit
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig

Inputs: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]
Features: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]


class Student(nn.Module, ABC):
    """A trainable model whose last layer is linear.

    transforms: turn a sample into the model's inputs, one per modality; empty if it reads the teachers' features.
    feature_dim: width S of the features, or one width per tower. num_outputs: width C of the logits.
    axes: names of the tensors that `prepare` returns, each with the names of its leading axes of variable length.
    """

    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    transforms: tuple[ImageTransform | TextTransform, ...]
    feature_dim: int | tuple[int, int]
    num_outputs: int

    def forward(self, inputs: Inputs) -> tuple[torch.Tensor, Features]:
        """Logits (B, C) and features (B, S), the input of the last layer, or a tuple of both towers' features.

        inputs: stacked outputs of the transforms: (B, height, width, 3) uint8 images, (B, L) int32 token ids, a tuple of
        both, or (B, T) float32 features.
        """
        return self.run(*self.prepare(inputs))

    @abstractmethod
    def prepare(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        """Inputs of the network itself: normalised pixels (B, 3, height, width), ids (B, L) int64, ..."""

    @abstractmethod
    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, Features]:
        """Logits and features from the output of `prepare`; no step may depend on its values, so that ONNX can hold it."""


class LibraryStudent(Student):
    """A student that its own library can load without aft_ray.

    library: its name on the model hub. has_pipeline: whether the library's own classification pipeline loads what `save`
    wrote, with the trained head.
    """

    library: ClassVar[str]
    has_pipeline = True

    @abstractmethod
    def save(self, directory: Path, classes: Sequence[str], task: str) -> str:
        """Writes the model in its library's format. Returns the lines of Python that load it.

        Raises InputError if the format cannot hold the trained model.
        """

    @abstractmethod
    def load(self, directory: Path) -> None:
        """Takes the weights of encoder and head from the files that `save` wrote."""


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a row's output depends on the other rows of its batch in training mode."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())


def refuse(config: StudentConfig, *keys: str, why: str) -> None:
    """Raises InputError if the recipe sets one of `keys`, which have no effect on this student."""
    faults = [f"student.{key} has no meaning for {why}." for key in keys if getattr(config, key)]
    if faults:
        raise InputError(faults)


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], location: str) -> None:
    """Loads the model's tensors from `state`, which may have more. Raises InputError if one is missing or has another shape."""
    wanted = model.state_dict()
    check_fit(wanted, state, location)
    model.load_state_dict({name: state[name] for name in wanted})


def trimmed(ids_BL: torch.Tensor) -> torch.Tensor:
    """Token ids as int64, without the columns that are padding in every row; at least one column."""
    longest = int((ids_BL != PADDING).sum(1).max()) if len(ids_BL) else 0
    return ids_BL[:, : max(1, longest)].long()
