"""The groups that have samples with a label and samples without: there those without may be held out, as the others."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.buckets.sorting import Sorter
from aft_ray.datasets.held_out import TRAIN, labelled_in


@dataclass(frozen=True)
class _Among:
    """Finds which of some groups have a label."""

    sorter: Sorter
    groups: pa.Array

    def labelled(self, bucket: int) -> pa.Array:
        found = labelled_in(self.sorter.items(bucket)).groups
        return found.filter(pc.is_in(found, value_set=self.groups))


@dataclass(frozen=True)
class _Unlabelled:
    sorter: Sorter

    def groups(self, bucket: int) -> pa.Array:
        items = self.sorter.items(bucket)
        if items.groups is None:
            return pa.array([], pa.string())
        waiting = (items.splits <= TRAIN) & ~items.labels.known[items.labels.codes]
        return items.groups.filter(pa.array(waiting)).unique().drop_null()


def mixed_groups(sorter: Sorter, tasks: Tasks) -> pa.Array:
    """This process holds the groups of samples without a label."""
    buckets = [(bucket,) for bucket in range(len(sorter.limits))]
    waiting = _union([*tasks(_Unlabelled(sorter).groups, buckets)])
    return _union([*tasks(_Among(sorter, waiting).labelled, buckets)]) if len(waiting) else waiting


def _union(arrays: list[pa.Array]) -> pa.Array:
    return pa.chunked_array(arrays, pa.string()).unique()
