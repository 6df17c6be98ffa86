"""Made inputs of the extraction benchmarks: pictures, recipes, weights, and a teacher that sleeps.

Pictures are JPEGs of smoothed noise and models have random weights: neither changes the time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.recipe.sections import TeacherConfig

DISTINCT = 256
"""Pictures that differ; any further one is a link to one of them."""
SLEEPING = "jobs.benchmarks.extraction_made:Sleeping"
"""The sleeping teacher's `model` in a recipe."""


class Sleeping:
    """A teacher that takes `sleep_s` per batch and has one feature; writes `pid start end` to `log`."""

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        self.options, self.feature_dim = config.options, 1

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        return TeacherDescription("image", ImageTransform(8), {})

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        started = time.time()
        time.sleep(self.options["sleep_s"])
        if "log" in self.options:
            with Path(self.options["log"]).open("a") as log:
                log.write(f"{os.getpid()} {started} {time.time()}\n")
        return torch.zeros(len(inputs), 1)


def write_pictures(root: Path, count: int, size: int) -> None:
    random = np.random.default_rng(0)
    for index in range(count):
        path = root / f"class{index % 2}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index >= DISTINCT:
            path.hardlink_to(root / f"class{index % 2}" / f"{index % DISTINCT:05d}.jpg")
            continue
        pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)).save(path, quality=85)


def write_recipe(path: Path, workspace: Path, pictures: Path, teachers: list[dict[str, Any]], rows: int) -> Path:
    dataset = {"source": "image_folder", "path": str(pictures), "samples_per_shard": rows}
    dataset |= {"validation_fraction": 0.05, "test_fraction": 0.001}
    content = {"workspace": str(workspace), "dataset": dataset, "teachers": teachers, "student": {"model": "tiny:cnn"}}
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def random_weights(model: str, folder: Path) -> str:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = folder / f"{model}.safetensors"
    save_file(timm.create_model(model).state_dict(), path)
    return str(path)


def prepared(folder: Path, name: str, count: int, size: int, teachers: list[dict[str, Any]], rows: int) -> str:
    """A recipe whose samples are prepared."""
    from aft_ray.datasets.prepare import prepare
    from aft_ray.recipe.config import load

    pictures = folder / f"pictures{count}"
    if not pictures.exists():
        write_pictures(pictures, count, size)
    path = write_recipe(folder / f"{name}.yaml", folder / name, pictures, teachers, rows)
    prepare(load(path))
    return str(path)
