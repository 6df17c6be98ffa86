"""Where each class's share of the held-out splits ends, for `dataset.stratify`, without sorting a class as a whole.

Samples are held out by their places: those of a class with the lowest are test, the next are validation. Counts of each class in
equal ranges of places tell in which range a split ends; the samples there, few, are then sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.buckets.labels import LabelRows
from aft_ray.datasets.held_out import HELD_OUT, TRAIN, Rule, held_out_of_class, places_of
from aft_ray.datasets.items import UNKNOWN, Items

CELLS = 2_000_000
"""Counts that this process keeps: ranges times labels."""
MOST_RANGES = 4096
CELL, PLACE, ID = "cell", "place", "sample_id"


@dataclass(frozen=True)
class Edges:
    """For each split in HELD_OUT and each label, the first sample behind the split: its place, and its id where places are
    alike.
    """

    places: np.ndarray
    ids: tuple[pa.Array, ...]

    def splits(self, items: Items, rule: Rule) -> np.ndarray:
        """As `held_out.by_class` of all samples, for some of them."""
        splits = np.where(items.splits == UNKNOWN, TRAIN, items.splits).astype(np.int8)
        held_out = np.flatnonzero(rule.may_be_held_out(items))
        found = items.take(held_out)
        places, codes = places_of(found, rule.seed), found.labels.codes
        for split, edges, ids in reversed([*zip(HELD_OUT, self.places, self.ids, strict=True)]):
            is_lower = pc.less(found.ids, ids.take(pa.array(codes))).to_numpy()
            edge = edges[codes]
            splits[held_out[(places < edge) | ((places == edge) & is_lower)]] = split
        return splits


class Sorted(Protocol):
    """The samples of buckets, less those that `max_samples` leaves out."""

    @property
    def labels(self) -> LabelRows: ...
    @property
    def rule(self) -> Rule: ...
    def items(self, bucket: int) -> Items: ...


@dataclass(frozen=True)
class Strata:
    """Counts the candidates of buckets for the held-out splits. cells: those whose samples are asked for, sorted."""

    sorter: Sorted
    cells: np.ndarray | None = None

    @property
    def ranges(self) -> int:
        return max(1, min(MOST_RANGES, CELLS // len(self.sorter.labels.values)))

    def _candidates(self, bucket: int) -> pa.Table:
        """Id, place and cell: the number of a label and of a range of places."""
        items, rule = self.sorter.items(bucket), self.sorter.rule
        found = items.take(np.flatnonzero(rule.may_be_held_out(items)))
        places = places_of(found, rule.seed)
        ranges = np.minimum((places * self.ranges).astype(np.int64), self.ranges - 1)
        return pa.table({CELL: found.labels.codes * np.int64(self.ranges) + ranges, PLACE: places, ID: found.ids})

    def count_places(self, bucket: int) -> tuple[np.ndarray, np.ndarray]:
        """Cells, and how many candidates each has."""
        return np.unique(self._candidates(bucket).column(CELL).to_numpy(), return_counts=True)

    def at_edges(self, bucket: int) -> pa.Table:
        """The candidates in the cells that are asked for."""
        found = self._candidates(bucket)
        return found.filter(pc.is_in(found.column(CELL), value_set=pa.array(self.cells)))


def edges_of(strata: Strata, tasks: Tasks, buckets: Sequence[tuple[int]]) -> Edges:
    num_labels, rule = len(strata.sorter.labels.values), strata.sorter.rule
    counts = np.zeros(num_labels * strata.ranges, np.int64)
    for cells, own in tasks(strata.count_places, buckets):
        counts[cells] += own
    ends = np.cumsum(counts.reshape(num_labels, -1), axis=1)
    held_out = np.array([held_out_of_class(rule, count) for count in ends[:, -1].tolist()]).reshape(num_labels, -1)
    ranks = np.cumsum(held_out, axis=1)  # of the first sample behind each split
    numbers = np.stack([(ends <= rank[:, None]).sum(axis=1) for rank in ranks.T])
    there = ends[:, -1] > 0
    places, ids = np.zeros((len(HELD_OUT), num_labels)), []
    wanted = (np.arange(num_labels) * strata.ranges + numbers)[:, there]
    near = _sorted(tasks(replace(strata, cells=np.unique(wanted)).at_edges, buckets))
    for split, cells in enumerate(wanted):
        before = np.where(cells % strata.ranges, ends.reshape(-1)[cells - 1], 0)
        rows = np.searchsorted(near.column(CELL).to_numpy(), cells) + ranks[there, split] - before
        edges = near.take(pa.array(rows))
        places[split, there] = edges.column(PLACE).to_numpy()
        own = np.full(num_labels, "", object)
        own[there] = edges.column(ID).to_pylist()
        ids.append(pa.array(own, pa.string()))
    return Edges(places, tuple(ids))


def _sorted(tables: object) -> pa.Table:
    whole = pa.concat_tables(tables).combine_chunks()
    return whole.sort_by([(CELL, "ascending"), (PLACE, "ascending"), (ID, "ascending")])
