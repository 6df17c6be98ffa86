"""Names and types that the stages agree on: the columns on disk and the batch in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "test")

UNLABELED = -1
"""The label of a sample that has none: it takes part in the regularizer only."""


def samples_schema(modality: str) -> pa.Schema:
    """Columns of a samples shard: `image` has the original encoded bytes, `text` the text as it was given."""
    content = pa.field("image", pa.binary()) if modality == "image" else pa.field("text", pa.string())
    return pa.schema([pa.field("sample_id", pa.string()), pa.field("label", pa.int64()), content])


def features_schema(feature_dim: int) -> pa.Schema:
    """Columns of a features shard: one pooled vector of `feature_dim` float16 numbers per sample."""
    features = pa.list_(pa.float16(), feature_dim)
    return pa.schema([pa.field("sample_id", pa.string()), pa.field("features", features)])


@dataclass(frozen=True)
class Batch:
    """One worker's rows of a global batch.

    inputs: (b, ...) what the student takes, as stored (uint8 images, (b, height, width, 3)).
    labels: (b,) int64, UNLABELED where there is none.
    teacher_features: (b, T) float32, the teachers side by side in the recipe's order; T is 0 without teachers.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    teacher_features: torch.Tensor
