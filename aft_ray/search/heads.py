"""A linear head and nearest neighbours on the features of each combination of teachers: what they know without a student.

The head is the posterior mean of Bayesian regression, whose strength the evidence of the train rows chooses (LogME), and
NEIGHBOURS train rows vote by their similarity: nothing is chosen on the rows that they classify.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aft_ray.cluster.nodes import memory_here
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import LogMEStatistics
from aft_ray.store.schema import UNLABELED
from aft_ray.store.side_by_side import Store

NEIGHBOURS = 20
NEIGHBOUR_BYTES = 8
"""Of the similarity and the label of one neighbour."""


@dataclass(frozen=True)
class Answers:
    """linear, neighbours: the class of each held-out row. log_me: the score of the combination."""

    log_me: float
    linear: np.ndarray
    neighbours: np.ndarray


class Heads:
    """Both heads of some combinations of teachers, from train rows that arrive shard by shard.

    columns: of each teacher's features. held_out: features (N, T) of the rows to classify.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        subsets: Sequence[tuple[str, ...]],
        num_classes: int,
        held_out: np.ndarray,
    ) -> None:
        self.columns, self.num_classes, self.held_out = columns, num_classes, held_out
        self.statistics = LogMEStatistics(held_out.shape[1], num_classes)
        self.neighbours = {subset: _Neighbours(len(held_out)) for subset in subsets}
        self.directions = {name: _normalised(held_out[:, own]) for name, own in columns.items()}

    def update(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Adds train rows; rows without a label say nothing."""
        features, labels = features[labels != UNLABELED], labels[labels != UNLABELED]
        if not len(labels):
            return
        self.statistics.update(features, labels)
        cosines = {name: self.directions[name] @ _normalised(features[:, own]).T for name, own in self.columns.items()}
        for subset, nearest in self.neighbours.items():
            nearest.update(np.sum([cosines[name] for name in subset], axis=0), labels)

    def answers(self, subset: tuple[str, ...]) -> Answers:
        chosen = np.concatenate([self.columns[name] for name in subset])
        score, weights = self.statistics.of(chosen).solve()
        linear = (self.held_out[:, chosen] @ weights.T).argmax(1)
        return Answers(score, linear, self.neighbours[subset].vote(self.num_classes))


def check_room(num_subsets: int, num_rows: int) -> None:
    """Raises InputError if the neighbours of `num_rows` held-out rows, for each combination of teachers, have no room in half of
    this machine's memory."""
    wanted, half = num_subsets * num_rows * NEIGHBOURS * NEIGHBOUR_BYTES, memory_here() / 2
    if wanted > half:
        raise InputError(
            f"The neighbours of {num_rows:,} samples for {num_subsets:,} combinations of teachers take {wanted / 1e9:.1f} GB,"
            f" more than half of this machine's memory, {half / 1e9:.1f} GB. Set search.teachers to singles,"
            " singles_and_pairs or a list of combinations."
        )


def columns_of(names: Sequence[str], widths: Sequence[int]) -> dict[str, np.ndarray]:
    """The columns of each teacher's features, side by side."""
    bounds = np.cumsum([0, *widths])
    return {name: np.arange(bounds[k], bounds[k + 1]) for k, name in enumerate(names)}


def rows_with(labels: np.ndarray, store: Store) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The features (n, T) of each shard of a split in turn, with their part of `labels` (N,), which need not be the store's."""
    start = 0
    for index in range(store.num_shards):
        features = store.read_shard(index, columns=())["features"]
        yield features, labels[start : start + len(features)]
        start += len(features)


def labelled_rows(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, T) float32 and labels (N,) of a split, without the rows that have no label."""
    shards = store.map_shards(lambda shard: (shard["features"], shard["label"]), columns=())
    features = np.concatenate([features for features, _ in shards])
    labels = np.concatenate([labels for _, labels in shards])
    return features[labels != UNLABELED], labels[labels != UNLABELED]


def _normalised(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, so that every teacher of a combination has the same say."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


class _Neighbours:
    """The most similar labelled train samples of each of `num_rows` held-out samples, so far."""

    def __init__(self, num_rows: int) -> None:
        self.similarities = np.zeros((num_rows, 0), np.float32)
        self.labels = np.zeros((num_rows, 0), np.int32)

    def update(self, similarities: np.ndarray, labels: np.ndarray) -> None:
        """similarities: (num_rows, n) to n more samples, of `labels` (n,)."""
        candidates = np.concatenate([self.similarities, similarities], axis=1)
        owners = np.concatenate([self.labels, np.broadcast_to(labels.astype(np.int32), similarities.shape)], axis=1)
        kept = np.argsort(-candidates, axis=1, kind="stable")[:, :NEIGHBOURS]
        self.similarities = np.take_along_axis(candidates, kept, axis=1)
        self.labels = np.take_along_axis(owners, kept, axis=1)

    def vote(self, num_classes: int) -> np.ndarray:
        """(num_rows,) the class with the largest sum of similarities."""
        votes = np.zeros((len(self.labels), num_classes))
        rows = np.arange(len(self.labels))[:, None]
        np.add.at(votes, (rows, self.labels), self.similarities)
        return votes.argmax(1)
