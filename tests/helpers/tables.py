"""Small tables of texts in every format, and the recipes that read them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import DatasetConfig

TEXT = {"text": "text"}


def dataset(**keys: Any) -> DatasetConfig:
    return DatasetConfig.model_validate(keys)


def recipe(tmp_path: Path, **keys: object) -> Recipe:
    return Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": keys, "student": {"model": "tiny:cnn"}}
    )


def write_csv(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    found = list(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*found[0]])
        writer.writeheader()
        writer.writerows(found)
    return file


def write_jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def sentences(count: int = 60) -> list[dict[str, Any]]:
    return [
        {"text": f'sätze, "{index}"\nover lines', "label": "odd" if index % 2 else "even"} for index in range(count)
    ]
