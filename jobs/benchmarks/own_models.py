"""Models that the results need and no package has: teachers that serve as controls, a student cut from a teacher."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.models.weights import locate
from aft_ray.recipe.sections import TeacherConfig

SIDE = 8


class Pixels:
    """The pixels of a small picture as features: knowledge that needs no training."""

    feature_dim = SIDE * SIDE * 3

    def __init__(self, config: TeacherConfig, device: torch.device) -> None: ...

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        return TeacherDescription("image", ImageTransform(SIDE), {})

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(np.asarray(inputs)).flatten(1).float() / 255


class HashedWords:
    """Counts of a text's words by their hash, in unit rows: everything that a text shows without training."""

    feature_dim = 1024

    def __init__(self, config: TeacherConfig, device: torch.device) -> None: ...

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        return TeacherDescription("text", None, {})

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        counts = torch.zeros(len(inputs), self.feature_dim)
        for row, text in zip(counts, inputs, strict=True):
            for word in re.findall(r"\w+", str(text).lower()):
                row[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little") % self.feature_dim] += 1
        return torch.nn.functional.normalize(counts)


class Shuffled:
    """Another teacher, `options.teacher`, whose features of each sample go to the next one of the batch: real features that
    say nothing of their sample."""

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        self.teacher = build_teacher(_shuffled(config), device)
        self.feature_dim = self.teacher.feature_dim

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        shuffled = describe_teacher(_shuffled(config))
        return TeacherDescription(shuffled.modality, shuffled.transform, {"shuffled": shuffled.fingerprint})

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        return self.teacher(inputs).roll(1, 0)


def _shuffled(config: TeacherConfig) -> TeacherConfig:
    return TeacherConfig.model_validate({"name": config.name, **config.options["teacher"]})


def cut_encoder(source: str, layers: int, place: Path) -> None:
    """Writes a BERT with the embeddings and the first `layers` layers of that in directory `source`."""
    if (place / "model.safetensors").exists():
        return
    shutil.copytree(locate(source), place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}, indent=1))
    kept = [f"encoder.layer.{number}." for number in range(layers)]
    tensors = load_file(locate(source) / "model.safetensors")
    tensors = {n: t for n, t in tensors.items() if not n.startswith("encoder.layer.") or n.startswith(tuple(kept))}
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
