"""What the tests of extraction share: a recipe of small teachers for the pictures of `image_folder`."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from aft_ray.recipe.config import Recipe


def recipe(tmp_path: Path, image_folder: Path, *teachers: str) -> Recipe:
    """Small timm models with fixed random weights; real ones are tested alone, in test_teachers."""
    entries = []
    for name in teachers:
        torch.manual_seed(0)
        path = tmp_path / f"{name}.safetensors"
        save_file(timm.create_model(f"test_{name}").state_dict(), path)
        dtype = "float32" if name == "resnet" else "float16"
        model = {"model": f"timm:test_{name}", "weights": str(path), "features_dtype": dtype}
        entries.append({"name": name, **model, "batch_size": 5})
    return Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder), "samples_per_shard": 8},
            "teachers": entries,
            "student": {"model": "tiny:cnn"},
        }
    )
