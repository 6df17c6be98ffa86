"""The protocol of every teacher: a class that describes itself without its weights, and frozen models made from it.

A class of your own, named in the recipe as `module:Class`, makes a teacher of any other model; its module must be importable
on every machine of the cluster. A pathology model, say, in `my_lab/teachers.py`:

    TRANSFORM = ImageTransform(224, mean=(0.7, 0.6, 0.7), std=(0.2, 0.2, 0.2))

    class Pathology:
        @classmethod
        def describe(cls, config):
            return TeacherDescription("image", TRANSFORM, {"weights": sha256(locate(config.weights))})

        def __init__(self, config, device):
            self.device, self.model = device, PathologyNet(**config.options)
            self.model.load_state_dict(load_state_dict(config.weights))
            self.model.eval().requires_grad_(False).to(device)
            self.feature_dim = 1536

        @torch.inference_mode()
        def __call__(self, inputs):
            return self.model(normalise(to_device(inputs, self.device), TRANSFORM)).float()

with `teachers: [{model: "my_lab.teachers:Pathology", weights: /models/pathology.pth, options: {depth: 24}}]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from aft_ray.models.images import ImageTransform
from aft_ray.models.views import View
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TeacherDescription:
    """The teacher's input, and the settings that its features depend on.

    transform: turns an image into the teacher's input; None for text.
    view: the part of each picture that it sees; None for the whole.
    fingerprint: everything that changes the features' values, as plain JSON values. `describe_teacher` adds the recipe's
        settings of every teacher (model, transform, options, precision, features_dtype).
    """

    modality: Literal["image", "text"]
    transform: ImageTransform | None
    fingerprint: dict[str, Any]
    view: View | None = None

    @property
    def is_of_picture(self) -> bool:
        """Whether the input depends on the picture alone: all samples with one picture have the same."""
        return self.transform is not None and self.view is None

    def seen_as(self, view: View) -> TeacherDescription:
        """The description for one view of each picture."""
        return replace(self, view=view, fingerprint={**self.fingerprint, "view": view.fingerprint()})


class Teacher(Protocol):
    """A frozen model. `feature_dim` comes from the model itself, never from a table."""

    feature_dim: int

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        """The teacher's input and the identity of its features, without loading its weights."""
        ...

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        """Loads the model onto `device`, in evaluation mode."""
        ...

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        """(n, feature_dim) float32 on the teacher's device, for a batch of (n, size, size, 3) uint8 images or n texts.

        If the batch does not fit in the device's memory, torch.OutOfMemoryError goes to the caller.
        """
        ...


def refuse(config: TeacherConfig, *keys: str, why: str) -> None:
    """Raises InputError if the recipe sets one of `keys`, which have no effect on this teacher."""
    faults = [f"'{key}' has no meaning for {why}." for key in keys if getattr(config, key)]
    if faults:
        raise InputError(faults)
