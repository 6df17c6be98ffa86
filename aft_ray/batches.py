"""Training input: a split held in memory, and the samples of any step as a function of the step alone.

Images are decoded once, at the student's size, as uint8: 50,000 of 224 pixels are 7.5 GB, of 28 pixels 0.1 GB. The
order is a pure function of (seed, step), so a resumed run goes on with the very next sample and every worker, whatever
their number, knows its rows without asking the others; all steps have the full global batch, so counts cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from aft_ray.config import InputError
from aft_ray.images import ImageTransform
from aft_ray.schema import UNLABELED, Batch
from aft_ray.store import Store


@dataclass(frozen=True)
class Split:
    """One split in memory.

    sample_ids: N strings. labels: (N,) int64. inputs: (N, height, width, 3) uint8. features: teacher -> (N, T_k) float16.
    """

    sample_ids: np.ndarray
    labels: np.ndarray
    inputs: np.ndarray
    features: dict[str, np.ndarray]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray, teachers: Sequence[str], device: torch.device) -> Batch:
        """Rows `indices`, with the features of `teachers` side by side."""
        blocks = [self.features[teacher][indices] for teacher in teachers]
        empty = np.zeros((len(indices), 0), np.float16)
        features = torch.from_numpy(np.concatenate([empty, *blocks], axis=1))
        return Batch(
            inputs=torch.from_numpy(self.inputs[indices]).to(device, non_blocking=True),
            labels=torch.from_numpy(self.labels[indices]).to(device, non_blocking=True),
            teacher_features=features.to(device, non_blocking=True).float(),
        )

    def keep_labels(self, per_class: int | None, seed: int) -> Split:
        """The same samples, of which a random `per_class` of each class keep their label; all do if it is None."""
        return self if per_class is None else replace(self, labels=kept_labels(self.labels, per_class, seed))


def kept_labels(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """(N,) `labels` of which a random `per_class` of each class remain; the others are UNLABELED."""
    order = np.random.default_rng((seed, 2)).permutation(len(labels))
    few = np.full_like(labels, UNLABELED)
    for label in np.unique(labels[labels != UNLABELED]):
        few[order[labels[order] == label][:per_class]] = label
    return few


def load_split(store: Store, teachers: Sequence[str], transform: ImageTransform) -> Split:
    """Reads every shard of a split, decodes its images for the student and takes the features of `teachers`."""
    bounds = np.cumsum([0, *store.teacher_dims])

    def load(shard: dict) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        inputs = np.stack([transform(encoded) for encoded in shard["image"]])
        return shard["sample_id"], shard["label"], inputs, shard["features"].astype(np.float16)

    ids, labels, inputs, features = zip(*store.map_shards(load), strict=True)
    side_by_side = np.concatenate(features)
    return Split(
        sample_ids=np.array([sample_id for shard in ids for sample_id in shard]),
        labels=np.concatenate(labels),
        inputs=np.concatenate(inputs),
        features={
            name: np.ascontiguousarray(side_by_side[:, start:stop])
            for name, start, stop in zip(teachers, bounds, bounds[1:], strict=False)
        },
        classes=tuple(store.manifest["classes"]),
    )


class BatchOrder:
    """Which samples make the global batch of each step.

    Samples with a label and samples without are two streams, each a shuffle of its samples per epoch; a batch takes
    `num_labeled` rows of the first, then the rest from the second.
    """

    def __init__(self, labels: np.ndarray, global_batch_size: int, labeled_fraction: float, seed: int) -> None:
        """labels: (N,) of the train split. Raises InputError if no sample has a label, or a batch exceeds the split."""
        labeled, unlabeled = np.flatnonzero(labels != UNLABELED), np.flatnonzero(labels == UNLABELED)
        if not len(labeled):
            raise InputError("No sample of the train split has a label: there is no task to train on.")
        if len(labels) < global_batch_size:
            raise InputError(
                f"train.global_batch_size is {global_batch_size}, the train split has {len(labels)} samples."
                " Lower it or give more samples."
            )
        wanted = round(global_batch_size * labeled_fraction) if len(unlabeled) else global_batch_size
        self.num_labeled = max(1, min(wanted, len(labeled)), global_batch_size - len(unlabeled))
        self.num_unlabeled = global_batch_size - self.num_labeled
        self.streams = (_ShuffledStream(labeled, (seed, 0)), _ShuffledStream(unlabeled, (seed, 1)))

    def labeled(self, step: int) -> np.ndarray:
        """(num_labeled,) indices of step `step`, counted from 0: all that a run without a regularizer needs."""
        return self.streams[0].take(step * self.num_labeled, self.num_labeled)

    def all(self, step: int) -> np.ndarray:
        """(global_batch_size,) indices of step `step`, those with a label first."""
        unlabeled = self.streams[1].take(step * self.num_unlabeled, self.num_unlabeled)
        return np.concatenate([self.labeled(step), unlabeled])


class _ShuffledStream:
    """An endless sequence: one shuffle of `items` after another, each a function of (*seed, epoch)."""

    def __init__(self, items: np.ndarray, seed: tuple[int, ...]) -> None:
        self.items, self.seed = items, seed
        self.epoch, self.order = -1, items

    def take(self, start: int, count: int) -> np.ndarray:
        parts = []
        while count:
            epoch, offset = divmod(start, len(self.items))
            part = self._shuffled(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else self.items[:0]

    def _shuffled(self, epoch: int) -> np.ndarray:
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng((*self.seed, epoch)).permutation(self.items)
        return self.order


def worker_rows(indices: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """This worker's rows of a global batch: every `world_size`-th, so that labelled rows are shared out evenly."""
    return indices[rank::world_size]


def evaluation_batches(split: Split, batch_size: int, rank: int, world_size: int) -> Iterator[np.ndarray]:
    """Indices of this worker's share of a split: over all workers every sample exactly once."""
    own = np.arange(rank, len(split), world_size)
    return (own[start : start + batch_size] for start in range(0, len(own), batch_size))
