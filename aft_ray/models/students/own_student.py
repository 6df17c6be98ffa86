"""Classes of the user's own as students, `module:Class`; `base` describes such a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aft_ray.models.images import ImageTransform
from aft_ray.models.students.base import Inputs, Student
from aft_ray.models.text import TextTransform
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.own_class import import_class, own_faults
from aft_ray.recipe.sections import StudentConfig

COLUMNS = (("image",), ("text",), ("image", "text"))


def transforms(config: StudentConfig) -> tuple[ImageTransform | TextTransform, ...]:
    with own_faults(config.model, "student.model"):
        found = _own_class(config).describe(config)
    columns = tuple(getattr(transform, "column", None) for transform in found) if isinstance(found, tuple) else None
    if columns not in COLUMNS:
        raise InputError(
            f"student.model: {config.model}.describe must return a tuple of transforms: one of images, one of texts, or one"
            f" of each, got {found!r}."
        )
    return tuple(found)


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    own = _own_class(config)
    if for_inference:
        config = config.model_copy(update={"pretrained": False, "weights": None})
    with own_faults(config.model, "student.model"), torch.no_grad():
        with torch.enable_grad():
            student: Student = own(config, num_outputs)
        student.transforms = transforms(config)
        found = student.eval()(_example(student.transforms))
    if not isinstance(found, tuple) or len(found) != 2:
        raise InputError(
            f"student.model: {config.model}.run must return logits and features, got {type(found).__name__}."
        )
    logits, features = found
    widths = tuple(part.shape[-1] for part in (features if isinstance(features, tuple) else (features,)))
    if logits.shape != (1, num_outputs) or len(widths) != len(student.transforms):
        raise InputError(
            f"student.model: {config.model} must give logits of shape (rows, {num_outputs}) and features of each tower, got"
            f" logits {tuple(logits.shape)} of one row and {len(widths)} features."
        )
    student.feature_dim, student.num_outputs = widths if len(widths) == 2 else widths[0], num_outputs
    return student.train()


def _own_class(config: StudentConfig) -> type[Any]:
    found = import_class(config.model, "student.model", ("describe",))
    if not issubclass(found, Student):
        raise InputError(f"student.model: class {config.model} must be a subclass of aft_ray.models.students.Student.")
    return found


def _example(transforms: tuple[ImageTransform | TextTransform, ...]) -> Inputs:
    """A batch of one made-up sample, as the student's transforms return it."""
    arrays = [
        np.zeros((transform.size, transform.size, 3), np.uint8)
        if isinstance(transform, ImageTransform)
        else transform("a")
        for transform in transforms
    ]
    rows = tuple(torch.from_numpy(array[None]) for array in arrays)
    return rows if len(rows) > 1 else rows[0]
