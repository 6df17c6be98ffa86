"""Pairs of a picture and a sentence, several of each picture as in SNLI-VE, and a teacher of their sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import TeacherConfig

PAIRS = 17
MEANS = {"name": "means", "model": "tests.helpers.own_teachers:Means", "batch_size": 4}
LENGTHS = {"name": "lengths", "model": "tests.helpers.pairs:Lengths"}


class Lengths:
    """The length of a text and the number of its vowels."""

    feature_dim = 2

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        pass

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        return TeacherDescription("text", None, {"options": {}})

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        return torch.tensor([[len(text), sum(map(text.count, "aeiou"))] for text in inputs]).float()


def write_pairs(file: Path, pictures: Mapping[str, bytes | str], pairs: int = PAIRS) -> Path:
    """A table of `pairs` rows for each picture, in any order. pictures: encoded, or their files."""
    rows = [
        {"id": f"{name}#{number}", "image": picture, "filename": name, "text": f"sentence {number} about {name}"}
        for name, picture in pictures.items()
        for number in range(pairs)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    table = pa.Table.from_pylist([{**rows[place], "label": f"class {place % 3}"} for place in order])
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def recipe(workspace: Path, file: Path, teachers: Sequence[dict[str, Any]] = (), **dataset: Any) -> Recipe:
    """Pairs of one picture are in one group, and so in one split."""
    columns = {"image": "image", "text": "text", "id": "id", "group": "filename", "label": "label"}
    keys = {"source": "parquet", "path": str(file), "columns": columns, "max_bad_samples": PAIRS, **dataset}
    return Recipe.model_validate(
        {"workspace": str(workspace), "dataset": keys, "teachers": teachers, "student": {"model": "tiny:pair"}}
    )


def encoded(folder: Path) -> dict[str, bytes]:
    """The pictures of a folder by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}
