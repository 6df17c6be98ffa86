"""Which samples make the batch of each step: pure functions of (seed, step), without a look at the samples.

A resumed run therefore goes on with the very next sample, and every worker, whatever their number, knows its rows without
asking the others. All steps have the full global batch, so workers cannot count differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import UNLABELED

Shuffle: TypeAlias = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
"""Puts ascending items into the order of an epoch that the seed names."""

LANES = 8
WINDOW_SHARDS = 2


def shuffled(items: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """Any order of `items`, each as likely as the others."""
    return np.random.default_rng(seed).permutation(items)


@dataclass(frozen=True)
class WindowShuffle:
    """An order that can be read from shards: shards are shuffled, and samples inside a window of a few shards.

    The shuffled shards are cut into LANES equal lanes, each shuffled window by window, and the order takes one sample of
    each lane in turn: neighbours come from LANES * WINDOW_SHARDS shards. Where the number of workers divides LANES and
    the batch, every worker's rows come from lanes of its own in an epoch, so no shard's content is read by two.
    """

    bounds: np.ndarray
    """(shards + 1,) the first item of each shard, then the number of items."""

    def __call__(self, items: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng(seed)
        shards = np.split(items, np.searchsorted(items, self.bounds[1:-1]))
        walked = np.concatenate([shards[index] for index in random.permutation(len(shards))])
        size = WINDOW_SHARDS * -(-len(items) // len(shards))
        order = np.empty_like(items)
        for lane, rows in enumerate(np.array_split(walked, LANES)):
            windows = np.split(rows, range(size, len(rows), size))
            order[lane::LANES] = np.concatenate([random.permutation(window) for window in windows])
        return order


class BatchOrder:
    """Which samples make the global batch of each step.

    Samples with a label and samples without are two streams, each a shuffle of its samples per epoch; a batch takes
    `num_labeled` rows of the first, then the rest from the second.
    """

    def __init__(
        self,
        labels: np.ndarray,
        global_batch_size: int,
        labeled_fraction: float,
        seed: int,
        *,
        shuffle: Shuffle = shuffled,
        use: int = 0,
    ) -> None:
        """labels: (N,) or (N, C) of the train split. use: orders of different uses have nothing to do with each other.

        Raises InputError if no sample has a label, or a batch exceeds the split.
        """
        there = has_label(labels)
        labeled, unlabeled = np.flatnonzero(there), np.flatnonzero(~there)
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
        self.streams = tuple(
            _ShuffledStream(items, (seed, 3 * use + kind), shuffle) for kind, items in enumerate((labeled, unlabeled))
        )

    def labeled(self, step: int) -> np.ndarray:
        """(num_labeled,) indices of step `step`, counted from 0: all that a run without a regularizer needs."""
        return self.streams[0].take(step * self.num_labeled, self.num_labeled)

    def all(self, step: int) -> np.ndarray:
        """(global_batch_size,) indices of step `step`, labelled samples first."""
        unlabeled = self.streams[1].take(step * self.num_unlabeled, self.num_unlabeled)
        return np.concatenate([self.labeled(step), unlabeled])


class _ShuffledStream:
    """An endless sequence: one shuffle of `items` after another, each a function of (*seed, epoch). Threads may share it."""

    def __init__(self, items: np.ndarray, seed: tuple[int, ...], shuffle: Shuffle) -> None:
        self.items, self.seed, self.shuffle = items, seed, shuffle
        self.latest = (-1, items)

    def take(self, start: int, count: int) -> np.ndarray:
        parts = []
        while count:
            epoch, offset = divmod(start, len(self.items))
            part = self._epoch(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else self.items[:0]

    def _epoch(self, epoch: int) -> np.ndarray:
        known, order = self.latest
        if epoch != known:
            order = self.shuffle(self.items, (*self.seed, epoch))
            self.latest = (epoch, order)
        return order


def has_label(labels: np.ndarray) -> np.ndarray:
    """(N,) bool from (N,) classes with UNLABELED, or (N, C) numbers with NaN, where there is none."""
    return labels != UNLABELED if labels.ndim == 1 else ~np.isnan(labels).all(1)


def kept_labels(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """(N,) labels: a random `per_class` of each class remain, the others become UNLABELED."""
    order = np.random.default_rng((seed, 2)).permutation(len(labels))
    few = np.full_like(labels, UNLABELED)
    for label in np.unique(labels[labels != UNLABELED]):
        few[order[labels[order] == label][:per_class]] = label
    return few


def worker_rows(indices: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """This worker's rows of a global batch: every `world_size`-th, so that labelled rows are shared out evenly."""
    return indices[rank::world_size]


def row_counts(num_rows: int, world_size: int) -> list[int]:
    """How many of a global batch's rows each worker holds."""
    return [len(range(rank, num_rows, world_size)) for rank in range(world_size)]
