"""A workspace made from splits in memory, for benchmarks and tests."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from aft_ray.store.parquet import features_table
from aft_ray.store.schema import samples_schema
from aft_ray.store.shards import samples_fingerprint
from aft_ray.store.side_by_side import Store, open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.inputs.batches import Split


def made_store(
    place: Path,
    split: str,
    samples: Split,
    shard_size: int,
    fingerprints: Mapping[str, Mapping[str, Any]] | None = None,
) -> Store:
    """`samples` as shards of a workspace, their inputs as PNG, with the features of every teacher.

    fingerprints: of each teacher's features.
    """
    workspace = Workspace.at(place)
    assert isinstance(samples.inputs, np.ndarray)
    ranges = [slice(start, start + shard_size) for start in range(0, len(samples), shard_size)]
    directory, made = workspace.samples(split), {"made": "for a test", "split": split}
    for index, rows in enumerate(ranges):
        images = [_png(picture) for picture in samples.inputs[rows]]
        columns = [samples.sample_ids[rows].tolist(), samples.labels[rows].tolist(), images]
        schema = samples_schema("image", samples.task, len(samples.classes))
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        directory.write_shard(index, pa.table(arrays, schema=schema), made)
    facts: dict[str, Any] = {"modality": "image", "classes": list(samples.classes), "task": samples.task}
    manifest = directory.write_manifest(len(ranges), made, **facts)
    for name, features in samples.features.items():
        fingerprint = {"samples": samples_fingerprint(manifest), **(fingerprints or {}).get(name, {})}
        of_teacher = workspace.features(name, split)
        for index, rows in enumerate(ranges):
            table = features_table(samples.sample_ids[rows].tolist(), features[rows], str(features.dtype))
            of_teacher.write_shard(index, table, fingerprint)
        of_teacher.write_manifest(len(ranges), fingerprint, feature_dim=features.shape[1])
    return open_store(workspace, split, tuple(samples.features))


def _png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
