"""Names and types that the stages agree on: the columns on disk and the batch in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "test")

UNLABELED = -1
"""The label of a sample that has none: it takes part in the regularizer only."""


TASKS = ("classification", "multilabel", "regression")
"""What a label is: one class, the classes that apply, or numbers."""


def samples_schema(modality: str, task: str = "classification", num_outputs: int = 0, copy: bool = True) -> pa.Schema:
    """Columns of a samples shard.

    `label` is int64 for classification (UNLABELED where there is none), else `num_outputs` float32 (null where there is
    none). `image` has the original encoded bytes; with `copy=False`, `image_uri` says where they lie and `num_bytes` how
    many they were. `text` has the text as it was given. Modality `image+text` has both.
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
    """Columns of a features shard: one pooled vector of `feature_dim` numbers per sample, NaN where it was put aside."""
    number = pa.field("element", pa.float16() if dtype == "float16" else pa.float32(), nullable=False)
    features = pa.field("features", pa.list_(number, feature_dim), nullable=False)
    return pa.schema([pa.field("sample_id", pa.string()), features])


@dataclass(frozen=True)
class Batch:
    """One worker's rows of a global batch.

    inputs: what the student takes, as stored: (b, height, width, 3) uint8 images, (b, L) int32 token ids, (b, T) float32
    features; a tuple of two for a student with two towers.
    labels: (b,) int64, UNLABELED where there is none; (b, C) float32 of several labels or numbers, NaN where there is none.
    teacher_features: (b, T), the teachers side by side in the recipe's order; T is 0 without teachers.
    """

    inputs: torch.Tensor | tuple[torch.Tensor, ...]
    labels: torch.Tensor
    teacher_features: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """`function` of every tensor."""
        inputs = tuple(map(function, self.inputs)) if isinstance(self.inputs, tuple) else function(self.inputs)
        return Batch(inputs, function(self.labels), function(self.teacher_features))

    def to(self, device: torch.device) -> Batch:
        """The same on `device`; from pinned memory without waiting for it."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def split(self, num_parts: int) -> list[Batch]:
        """At least one and at most `num_parts` parts of equal size, the last perhaps smaller, in order."""
        size = max(1, -(-len(self) // num_parts))
        starts = range(0, max(1, len(self)), size)
        return [self.map(lambda tensor, at=start: tensor[at : at + size]) for start in starts]  # type: ignore[misc]
