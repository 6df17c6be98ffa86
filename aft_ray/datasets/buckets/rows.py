"""The samples of one split in the files of their buckets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.base import Content, Listing
from aft_ray.datasets.buckets.files import read_table
from aft_ray.datasets.buckets.labels import LabelRows
from aft_ray.datasets.buckets.mapping import ID, LABEL, SIZE, SPLIT, items_of
from aft_ray.datasets.buckets.sorting import chosen_name, labels_of
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.parts import Head, Plan, listing_with
from aft_ray.datasets.rows import Span
from aft_ray.datasets.shard_writing import Part, Writer, Written
from aft_ray.store.files import Directory


@dataclass(frozen=True)
class BucketRows:
    """The samples of one split. offsets: of each bucket, where the split begins in its file. starts: of each bucket, the
    split's samples in the buckets before; then their number. lines: the digest of all lines. tally: of all.
    reader: makes the function that reads samples from their contents.
    """

    place: Directory
    plan: Plan
    head: Head
    labels: LabelRows
    offsets: np.ndarray
    starts: np.ndarray
    lines: str
    tally: np.ndarray
    reader: Callable[[pa.Table], Callable[[int], Content]]

    order = None

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def listing(self) -> Listing:
        return self.part(0, 0)[0]

    def digest(self) -> str:
        return self.lines

    def bounds(self, rows: int) -> list[int]:
        return [*range(0, len(self), rows), len(self)]

    def part(self, start: int, stop: int) -> Part:
        """Reads the samples from their buckets."""
        tables = [read_table(self.place, chosen_name(bucket), *span) for bucket, *span in self._spans(start, stop)]
        rows = pa.concat_tables(tables)
        contents = rows.drop_columns([ID, LABEL, SIZE, SPLIT])
        read = Lookup(self.reader, contents)
        listing = listing_with(self.plan, self.head, items_of(rows, self.labels), contents, read)
        return listing, np.arange(len(rows))

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Each bucket that has some of the samples, and their first row and last in its file; one bucket at least."""
        bucket = min(int(np.searchsorted(self.starts, start, side="right")), len(self.offsets)) - 1
        while True:
            first, last = int(self.starts[bucket]), int(self.starts[bucket + 1])
            offset = int(self.offsets[bucket]) - first
            yield bucket, offset + max(start, first), offset + min(stop, last)
            bucket += 1
            if last >= stop:
                return

    def written(self, writer: Writer, tasks: Tasks, groups: Sequence[Sequence[Span]]) -> Iterator[list[Written]]:
        """The tasks read the samples themselves."""
        return tasks(_Work(self, writer).write_shards, ((group,) for group in groups))

    def tally_without(self, ids: Sequence[str]) -> np.ndarray:
        if not ids:
            return self.tally
        spans, given = self._spans(0, len(self)), pa.array(ids)
        without = (self.labels.tally(labels_of(self.place, *span, given)) for span in spans)
        return self.tally - sum(without)


@dataclass(frozen=True)
class _Work:
    """What the tasks of one split do."""

    rows: BucketRows
    writer: Writer

    def write_shards(self, group: Sequence[Span]) -> list[Written]:
        spans = {shard: (start, stop) for shard, start, stop in group}
        return list(self.writer.written([*spans], lambda shard: self.rows.part(*spans[shard])))
