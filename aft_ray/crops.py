"""The CPU stage of extraction: one samples shard -> what each teacher takes.

It runs in many light processes, so nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from aft_ray.config import InputError
from aft_ray.store import Workspace
from aft_ray.teachers.base import TeacherDescription

CROPS = "crops/"
"""Prefix of the pipeline's columns that hold a teacher's inputs."""


def read_shard(
    row: dict[str, Any], *, workspace: Workspace, descriptions: Mapping[str, TeacherDescription]
) -> dict[str, Any]:
    """Adds to a row the shard's `sample_id` and, under `crops/<teacher>`, what each teacher that lacks it takes."""
    table = workspace.samples(row["split"]).read_shard(row["shard"])
    row["sample_id"] = table.column("sample_id").to_pylist()
    wanted = row["teachers"].split(",")
    for name, description in descriptions.items():
        if description.transform is None:
            row[CROPS + name] = table.column("text").to_pylist() if name in wanted else []
        else:
            size = description.transform.size
            row[CROPS + name] = np.zeros((table.num_rows if name in wanted else 0, size, size, 3), np.uint8)
    if "image" in table.column_names:
        _crop_images(row, table, {name: descriptions[name] for name in wanted})
    return row


def _crop_images(row: dict[str, Any], table: pa.Table, descriptions: Mapping[str, TeacherDescription]) -> None:
    faults = []
    for index, encoded in enumerate(table.column("image")):
        try:
            for name, description in descriptions.items():
                assert description.transform is not None, "modalities were checked"
                row[CROPS + name][index] = description.transform(encoded.as_py())
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
            faults.append(f"Sample {row['sample_id'][index]} cannot be decoded: {reason}. Remove it and prepare again.")
    if faults:
        raise InputError(faults)
