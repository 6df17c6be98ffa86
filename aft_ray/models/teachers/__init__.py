"""Frozen pretrained models that turn samples into features: one class per library, and classes of your own.

`timm:`, `open_clip:` and `transformers:` are short names of the three classes here; any other `module:Class` is imported.
`aft_ray.models.teachers.base` describes such a class.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aft_ray.models.adapters import import_adapter
from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers.base import Teacher, TeacherDescription, refuse
from aft_ray.models.views import View
from aft_ray.models.weights_file import library_fault
from aft_ray.recipe.errors import InputError, in_a_line
from aft_ray.recipe.model import view_name
from aft_ray.recipe.own_class import own_faults
from aft_ray.recipe.sections import TeacherConfig

if TYPE_CHECKING:
    import torch

__all__ = [
    "FORMS",
    "LIBRARIES",
    "Teacher",
    "TeacherDescription",
    "build_teacher",
    "describe_teacher",
    "describe_views",
    "faults",
]

ADAPTERS = {
    "open_clip": "aft_ray.models.teachers.open_clip_teacher:OpenClipTeacher",
    "timm": "aft_ray.models.teachers.timm_teacher:TimmTeacher",
    "transformers": "aft_ray.models.teachers.transformers_teacher:TransformersTeacher",
}
LIBRARIES = tuple(ADAPTERS)
FORMS = (
    ("timm:NAME", "image", "any published image model of timm; also timm:hf-hub:REPO, timm:local-dir:DIRECTORY"),
    ("open_clip:ARCHITECTURE/TAG", "image or text", "one tower of a CLIP model; also hf-hub:REPO, local-dir:DIRECTORY"),
    (
        "transformers:REPO_OR_DIRECTORY",
        "image or text",
        "BERT, DistilBERT, RoBERTa, T5, GPT-2, LLaMA and its like, sentence-transformers; DINOv2, ViT, CLIP, SigLIP",
    ),
    ("MODULE:Class", "image or text", "a class of your own; aft_ray/models/teachers/base.py has an example"),
)
"""Forms of `model`: how to write it, the samples that it reads, a description."""


def describe_teacher(config: TeacherConfig, samples: Mapping[str, Any] | None = None) -> TeacherDescription:
    """The teacher's input and the identity of its features, without loading its weights.

    samples: the manifest of the samples to read, which says how their pictures are decoded.
    Raises InputError if the model or its weights cannot be found, or the recipe asks for something that it cannot do.
    """
    adapter = _adapter(config)
    with own_faults(config.model, f"Teacher '{config.name}'"), _faults_named(config):
        description = adapter.describe(config)
        _check_description(config, description)
    if samples and isinstance(description.transform, ImageTransform):
        description = replace(description, transform=description.transform.reading(samples["fingerprint"]))
    return replace(description, fingerprint=_common_fingerprint(config, description) | description.fingerprint)


def describe_views(
    configs: Sequence[TeacherConfig], samples: Mapping[str, Any] | None, views: int, *, flip: bool
) -> dict[str, TeacherDescription]:
    """The description of every directory of features: of each teacher, and of its other views (see `views`).

    Raises InputError as `describe_teacher` does, and if a teacher of texts is to have views.
    """
    found: dict[str, TeacherDescription] = {}
    for config in configs:
        found[config.name] = whole = describe_teacher(config, samples)
        if views > 1 and whole.modality != "image":
            raise InputError(f"Teacher '{config.name}' reads texts, which have no views: set train.views to 1.")
        for number in range(1, views):
            found[view_name(config.name, number)] = whole.seen_as(View(number, flip))
    return found


def build_teacher(config: TeacherConfig, device: torch.device) -> Teacher:
    """The teacher in evaluation mode on `device`.

    Raises InputError if its weights cannot be fetched, belong to another model, or would execute code.
    """
    adapter = _adapter(config)
    with own_faults(config.model, f"Teacher '{config.name}'"), _faults_named(config):
        teacher: Teacher = adapter(config, device)
        if not isinstance(getattr(teacher, "feature_dim", None), int) or teacher.feature_dim < 1:
            raise InputError(f"{config.model} must set feature_dim, the number of its features, in __init__.")
    return teacher


def _check_description(config: TeacherConfig, description: Any) -> None:
    if not isinstance(description, TeacherDescription):
        raise InputError(f"{config.model}.describe must return a TeacherDescription, got {description!r}.")
    if description.modality not in ("image", "text"):
        raise InputError(f"{config.model}.describe: modality must be 'image' or 'text', got {description.modality!r}.")
    try:
        json.dumps(description.fingerprint)
    except (TypeError, ValueError) as error:
        raise InputError(f"{config.model}.describe: the fingerprint must hold plain JSON values: {error}.") from error


def faults(configs: Sequence[TeacherConfig]) -> list[str]:
    """Faults of the recipe's `teachers`, one line each."""
    lines: list[str] = []
    for config in configs:
        try:
            describe_teacher(config)
        except InputError as error:
            lines += error.faults
    return lines


def _common_fingerprint(config: TeacherConfig, description: TeacherDescription) -> dict[str, Any]:
    """Settings that change the features of any teacher; speed, place and versions do not belong here."""
    return {
        "model": config.model,
        "transform": description.transform.fingerprint() if description.transform else None,
        "options": config.options,
        "precision": config.precision,
        "features_dtype": config.features_dtype,
    }


@contextmanager
def _faults_named(config: TeacherConfig) -> Iterator[None]:
    """Prefixes each fault with the teacher's name; turns a library's error for a missing, unsafe or unfit file into one line."""
    try:
        yield
    except InputError as error:
        raise InputError([f"Teacher '{config.name}': {fault}" for fault in error.faults]) from error
    except FileNotFoundError as error:
        raise InputError(f"Teacher '{config.name}': {in_a_line(error)}.") from error
    except Exception as error:
        fault = library_fault(error, config.model, "or name a local file or directory")
        if fault is None:
            raise
        raise InputError(f"Teacher '{config.name}': {fault}") from error


def _adapter(config: TeacherConfig) -> Any:
    """The class that `model` names. Raises InputError with the known libraries, or with the methods that the class lacks."""
    library, separator, model = config.model.partition(":")
    if not separator or not model:
        raise InputError(
            f"teachers: model '{config.model}' must have the form LIBRARY:MODEL, such as timm:resnet50.a1_in1k."
        )
    if library in ADAPTERS:
        with _faults_named(config):
            refuse(config, "options", why=f"{library} models, only for a class of your own")
        module, _, name = ADAPTERS[library].partition(":")
        return getattr(import_adapter(module), name)
    unknown = (
        f"Unknown teacher library '{library}' in '{config.model}'. Known: {', '.join(LIBRARIES)}."
        " A class of your own is written MODULE:Class"
    )
    if not model.isidentifier() or not all(part.isidentifier() for part in library.split(".")):
        raise InputError(f"{unknown}.")
    try:
        adapter = _imported(config.model)
    except ModuleNotFoundError as error:
        if not f"{library}.".startswith(f"{error.name}."):
            raise InputError(f"Teacher '{config.name}': module {library} cannot be imported: {error}.") from error
        raise InputError(f"{unknown}; no module '{error.name}' is installed or on PYTHONPATH.") from error
    except AttributeError as error:
        raise InputError(f"{unknown}; module {library} has no {model}.") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"Teacher '{config.name}': module {library} cannot be imported: {reason}.") from error
    _check_class(config, adapter)
    return adapter


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _check_class(config: TeacherConfig, adapter: Any) -> None:
    if not inspect.isclass(adapter):
        raise InputError(f"Teacher '{config.name}': {config.model} must be a class, got a {type(adapter).__name__}.")
    lacking = []
    if not isinstance(inspect.getattr_static(adapter, "describe", None), classmethod | staticmethod):
        lacking.append(
            "lacks 'describe'; write @classmethod def describe(cls, config): return TeacherDescription('image' or 'text',"
            " ImageTransform(...) or None, {'weights': what identifies them})"
        )
    if not any("__call__" in vars(base) for base in adapter.__mro__):
        lacking.append("lacks '__call__'; write def __call__(self, inputs): return (n, feature_dim) float32 features")
    if lacking:
        raise InputError([f"Teacher '{config.name}': class {config.model} {fault}." for fault in lacking])
