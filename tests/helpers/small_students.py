"""One small student of every kind, with random weights and made of files that are written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aft_ray.models.students import Student, build_student
from aft_ray.recipe.sections import StudentConfig
from tests.helpers import hub

KINDS = (
    "tiny:cnn",
    "tiny:text",
    "tiny:pair",
    "timm",
    "bert",
    "distilbert",
    "roberta",
    "gpt2",
    "open_clip",
    "linear_probe",
)
TEACHER_DIMS = (4, 3)
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def small_config(kind: str, directory: Path, **options: Any) -> StudentConfig:
    """A student of a kind; `directory` gets the files that it is made of, if they are not there."""
    if kind == "timm":
        return StudentConfig(model="timm:test_vit", **options)
    if kind == "open_clip":
        directory.mkdir(exist_ok=True)
        saved = {"model_cfg": CLIP, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}
        (directory / "open_clip_config.json").write_text(json.dumps(saved))
        return StudentConfig(model=f"open_clip:local-dir:{directory}", **options)
    if kind in hub.TOKENIZERS or kind == "distilbert":
        if not (directory / "config.json").exists():
            hub.save_text_model(kind, directory)
        return StudentConfig(model=f"transformers:{directory}", **options)
    return StudentConfig(model=kind, **options)


def small_student(kind: str, directory: Path, num_outputs: int = 5, **options: Any) -> Student:
    config = small_config(kind, directory, **options)
    torch.manual_seed(0)
    return build_student(config, num_outputs, teacher_dims=TEACHER_DIMS)


def batch(student: Student, texts: list[str]) -> Any:
    """One sample for each text, its picture as bright as the text is long."""
    arrays = [
        np.stack([_picture(transform.size, text) if transform.column == "image" else transform(text) for text in texts])  # type: ignore[union-attr, arg-type]
        for transform in student.transforms
    ]
    if not arrays:
        arrays = [np.stack([np.arange(7, dtype=np.float32) * len(text) for text in texts])]
    tensors = tuple(map(torch.from_numpy, arrays))
    return tensors if len(tensors) > 1 else tensors[0]


def _picture(size: int, text: str) -> np.ndarray:
    return np.random.default_rng(len(text)).integers(0, 50 + 2 * len(text), (size, size, 3)).astype(np.uint8)


def rows(inputs: Any, which: slice) -> Any:
    return tuple(tensor[which] for tensor in inputs) if isinstance(inputs, tuple) else inputs[which]
