"""Teachers and a student that fit the data and the machine, and how to train with them.

With a GPU and the hub, strong published models; with the hub alone, small ones; without it, the models that installed packages
bring. A student for laptops has few weights and trains in seconds; what it has seen before are at most word vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aft_ray.commands.first_recipe.look import Found
from aft_ray.commands.first_recipe.machine import LITE0, LITE2, MINILM, MOBILENET, Machine, Package
from aft_ray.recipe.errors import InputError

SMALL_SIDE = 64
"""Pixels up to which a picture is small: an icon, a digit, a thumbnail."""
PACKAGED: dict[str, tuple[tuple[Package, dict[str, Any]], ...]] = {
    "image": (
        (LITE0, {"name": "lite0", "model": "timm:tf_efficientnet_lite0"}),
        (MOBILENET, {"name": "mobilenet", "model": "timm:mobilenetv2_100"}),
        (LITE2, {"name": "lite2", "model": "timm:tf_efficientnet_lite2"}),
    ),
    "text": ((MINILM, {"name": "minilm"}),),
}
"""Teachers that packages bring, the most useful first."""
WITH_GPU: dict[str, tuple[dict[str, Any], ...]] = {
    "image": (
        {"name": "dinov2", "model": "timm:vit_large_patch14_dinov2.lvd142m", "image_size": 224},
        {"name": "clip", "model": "open_clip:ViT-L-14/laion2b_s32b_b82k"},
    ),
    "text": (
        {"name": "mpnet", "model": "transformers:sentence-transformers/all-mpnet-base-v2"},
        {"name": "clip-text", "model": "open_clip:ViT-L-14/laion2b_s32b_b82k", "tower": "text"},
    ),
}
ON_CPU: dict[str, tuple[dict[str, Any], ...]] = {
    "image": ({"name": "dinov2", "model": "timm:vit_small_patch14_dinov2.lvd142m", "image_size": 224},),
    "text": ({"name": "minilm", "model": "transformers:sentence-transformers/all-MiniLM-L6-v2"},),
}
STUDENTS_WITH_GPU: dict[str, dict[str, Any]] = {
    "image": {"model": "timm:vit_small_patch16_224.augreg_in21k", "pretrained": True},
    "text": {"model": "transformers:distilbert/distilbert-base-uncased", "pretrained": True},
    "image+text": {"model": "open_clip:ViT-B-32/laion2b_s34b_b79k", "pretrained": True},
}
ON_GPU: dict[str, Any] = {"num_gpus": 0.5, "precision": "bf16"}


@dataclass(frozen=True)
class Choice:
    """teachers, student, train: sections of the recipe. missing: packages that would bring more teachers."""

    teachers: Sequence[Mapping[str, Any]]
    student: Mapping[str, Any]
    train: Mapping[str, Any]
    missing: Sequence[Package]


def choose(found: Found, machine: Machine) -> Choice:
    """Raises InputError, saying what to install, if there is no teacher here for the data's modality."""
    kinds = found.listing.modality.split("+")
    if machine.gpus and machine.has_hub:
        copies = {"num_actors": {"min": 1, "max": machine.gpus}} if machine.gpus > 1 else {}
        teachers = [teacher | ON_GPU | copies for kind in kinds for teacher in WITH_GPU[kind]]
        return Choice(teachers, STUDENTS_WITH_GPU[found.listing.modality], _gpu_training(found, machine), ())
    packaged = [(package, teacher) for kind in kinds for package, teacher in PACKAGED[kind]]
    missing = [package for package, _ in packaged if not package.is_here]
    if machine.has_hub:
        teachers = [teacher for kind in kinds for teacher in ON_CPU[kind]]
    else:
        here = [_packaged(kind, found) for kind in kinds]
        teachers = [teacher for of_kind in here for teacher in (of_kind if len(kinds) == 1 else of_kind[:1])]
    return Choice(teachers, _laptop_student(found), _laptop_training(found), missing)


def _packaged(kind: str, found: Found) -> list[dict[str, Any]]:
    """The teachers for pictures or for texts that installed packages bring. Raises InputError if there is none."""
    here = [_with_weights(package, teacher, found) for package, teacher in PACKAGED[kind] if package.is_here]
    if not here:
        ways = " or ".join(f"'{package.install}' ({package.brings})" for package, _ in PACKAGED[kind])
        raise InputError(
            f"There is no teacher for {kind}s here: the model hub cannot be reached, and no installed package brings one."
            f" Run {ways}."
        )
    return here


def _with_weights(package: Package, teacher: Mapping[str, Any], found: Found) -> dict[str, Any]:
    if package is MINILM:
        return {**teacher, "model": f"transformers:{package.place}", "max_length": _tokens(found)}
    return {**teacher, "weights": package.place, "image_size": 80 if found.side <= SMALL_SIDE else 160}


def _tokens(found: Found) -> int:
    """Tokens that hold nearly all of the texts."""
    return min(256, max(16, 8 * round(found.words * 2.5 / 8)))


def _laptop_student(found: Found) -> dict[str, Any]:
    modality = found.listing.modality
    student: dict[str, Any] = {"model": {"image": "tiny:cnn", "text": "tiny:text"}.get(modality, "tiny:pair")}
    if "text" in modality and MINILM.is_here:
        student["weights"] = MINILM.place
    if "image" in modality and found.side > 40:
        student["image_size"] = 48 if found.side <= 2 * SMALL_SIDE else 64
    if "text" in modality:
        student["max_length"] = _tokens(found)
    return student


def _laptop_training(found: Found) -> dict[str, Any]:
    """Some ten epochs, within limits that keep a training at seconds to a few minutes: a few hundred samples need more epochs."""
    rows = found.sizes["train"]
    batch = min(96, max(16, rows // 8))
    return {"steps": min(600, max(300, 12 * rows // batch)), "global_batch_size": batch, "learning_rate": 0.003}


def _gpu_training(found: Found, machine: Machine) -> dict[str, Any]:
    rows, batch = found.sizes["train"], 128
    steps = min(20_000, max(500, 10 * rows // batch))
    how = {"learning_rate": 1e-4, "warmup_steps": steps // 20, "precision": "bf16"}
    return {"steps": steps, "global_batch_size": batch, **how, "use_gpu": True, "num_workers": machine.gpus}
