"""Frozen pretrained models that turn samples into features: one adapter module per library."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from aft_ray.config import InputError, TeacherConfig
from aft_ray.teachers.base import Teacher, TeacherDescription

if TYPE_CHECKING:
    import torch

__all__ = ["LIBRARIES", "Teacher", "TeacherDescription", "build_teacher", "describe_teacher", "faults"]

LIBRARIES = ("timm", "transformers")


def describe_teacher(config: TeacherConfig) -> TeacherDescription:
    """What a teacher eats and what identifies its features, without loading its weights.

    Raises InputError if the model or its weights cannot be found.
    """
    try:
        return _adapter(config).describe(config)
    except FileNotFoundError as error:
        raise InputError(f"Teacher '{config.name}': {error}") from error


def build_teacher(config: TeacherConfig, device: torch.device) -> Teacher:
    """The teacher in evaluation mode on `device`.

    Raises InputError if its weights cannot be fetched, or are those of another model.
    """
    try:
        return _adapter(config).build(config, device)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"Teacher '{config.name}': {config.model} cannot be loaded: {reason} Where there is no network, fill the model"
            " hub's cache beforehand, or name a local file or directory."
        ) from error


def faults(configs: Sequence[TeacherConfig]) -> list[str]:
    """What is wrong with the recipe's `teachers`, one line each."""
    lines: list[str] = []
    for config in configs:
        try:
            describe_teacher(config)
        except InputError as error:
            lines += error.faults
    return lines


def _adapter(config: TeacherConfig) -> ModuleType:
    library, separator, model = config.model.partition(":")
    if not separator or not model:
        raise InputError(f"Teacher '{config.model}' must have the form LIBRARY:MODEL, such as timm:resnet50.a1_in1k.")
    if library == "timm":
        from aft_ray.teachers import timm_teacher

        return timm_teacher
    if library == "transformers":
        from aft_ray.teachers import transformers_teacher

        return transformers_teacher
    raise InputError(f"Unknown teacher library '{library}' in '{config.model}'. Known: {', '.join(LIBRARIES)}.")
