"""Names and types that the stages agree on: the columns on disk and the batch in memory."""

from __future__ import annotations

import pyarrow as pa

SPLITS = ("train", "validation", "test")

UNLABELED = -1
"""The label of a sample that has none: it takes part in the regularizer only."""


def samples_schema(modality: str, task: str = "classification", num_outputs: int = 0, copy: bool = True) -> pa.Schema:
    """Columns of a samples shard.

    `label` is int64 for classification (UNLABELED where there is none), else `num_outputs` float32 (null where there is
    none). `image` has the original encoded bytes; with `copy=False`, `image_uri` says where they lie and `num_bytes` how
    many they were. `text` has the text as it was given. Modality `image+text` has both; where pairs of a shard share a picture,
    its column is a dictionary, which holds each picture, or its place, once.
    """
    label = pa.int64() if task == "classification" else pa.list_(pa.float32(), num_outputs)
    fields = [pa.field("sample_id", pa.string()), pa.field("label", label)]
    if "image" in modality:
        image = [("image", pa.binary())] if copy else [("image_uri", pa.string()), ("num_bytes", pa.int64())]
        fields += [pa.field(name, kind) for name, kind in image]
    if "text" in modality:
        fields.append(pa.field("text", pa.string()))
    return pa.schema(fields)


def features_schema(feature_dim: int, dtype: str = "float16") -> pa.Schema:
    """Columns of a features shard: one pooled vector of `feature_dim` numbers per sample, NaN where it was quarantined."""
    number = pa.field("element", pa.float16() if dtype == "float16" else pa.float32(), nullable=False)
    features = pa.field("features", pa.list_(number, feature_dim), nullable=False)
    return pa.schema([pa.field("sample_id", pa.string()), features])
