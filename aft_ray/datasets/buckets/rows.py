"""The samples of one split in the files of their buckets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.base import Content, Listing
from aft_ray.datasets.buckets.files import numbered_file, read_table
from aft_ray.datasets.buckets.labels import LabelRows
from aft_ray.datasets.buckets.mapping import contents_of, items_of
from aft_ray.datasets.buckets.sorting import labels_of
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.parts import Head, Plan, listing_with
from aft_ray.datasets.rows import Span, bounds_of
from aft_ray.datasets.shard_writing import Part, Writer, Written
from aft_ray.store.files import Directory


@dataclass(frozen=True)
class BucketRows:
    """The samples of one split. kind: begins the names of their files. offsets: of each bucket, where the split begins in its
    file. starts: of each bucket, the split's samples in the buckets before; then their number. lines: the digest of all lines.
    tally: of all. reader: makes the function that reads samples from their contents. bits: of each bucket, `begins`.
    """

    place: Directory
    kind: str
    plan: Plan
    head: Head
    labels: LabelRows
    offsets: np.ndarray
    starts: np.ndarray
    lines: str
    tally: np.ndarray
    reader: Callable[[pa.Table], Callable[[int], Content]]
    pairs: float | None = None
    bits: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def listing(self) -> Listing:
        return self.part(0, 0)[0]

    def digest(self) -> str:
        return self.lines

    def bounds(self, rows: int) -> list[int]:
        return bounds_of(self, rows)

    def begins(self) -> Iterator[np.ndarray]:
        for bits, size in zip(self.bits, np.diff(self.starts).tolist(), strict=True):
            yield np.unpackbits(bits, count=size).astype(bool)

    def part(self, start: int, stop: int) -> Part:
        """Reads the samples from their buckets."""
        rows = pa.concat_tables(read_table(self.place, *span) for span in self._spans(start, stop))
        contents = contents_of(rows)
        read = Lookup(self.reader, contents)
        listing = listing_with(self.plan, self.head, items_of(rows, self.labels), contents, read)
        return listing, np.arange(len(rows))

    def _spans(self, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """The file of each bucket that has some of the samples, and their first row and last there; one file at least."""
        bucket = min(int(np.searchsorted(self.starts, start, side="right")), len(self.offsets)) - 1
        while True:
            first, last = int(self.starts[bucket]), int(self.starts[bucket + 1])
            offset = int(self.offsets[bucket]) - first
            yield numbered_file(self.kind, bucket), offset + max(start, first), offset + min(stop, last)
            bucket += 1
            if last >= stop:
                return

    def written(self, writer: Writer, tasks: Tasks, groups: Sequence[Sequence[Span]]) -> Iterator[list[Written]]:
        """The tasks read the samples themselves."""
        return tasks(_Work(replace(self, bits=()), writer).write_shards, ((group,) for group in groups))

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
