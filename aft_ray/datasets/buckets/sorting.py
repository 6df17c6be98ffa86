"""The passes over buckets. A bucket has all samples of a range of hashes; a task sorts one, as a whole data set is sorted."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aft_ray.datasets.buckets.files import numbered_file, read_table, write_table
from aft_ray.datasets.buckets.labels import LabelRows
from aft_ray.datasets.buckets.mapping import GROUP, HASH, ID, LABEL, ROW, SPLIT, Mapped, items_of
from aft_ray.datasets.buckets.strata import Edges
from aft_ray.datasets.held_out import TRAIN, Rule, are_first, by_hash, labelled_in
from aft_ray.datasets.items import CHUNK, Items, tally
from aft_ray.datasets.rows import fingerprint_lines
from aft_ray.datasets.samples import NAMED
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS

UNPACKED_BYTES = 1 << 20
"""Of lines that the driver has at once."""


@dataclass(frozen=True)
class Twice:
    """Ids that are there twice. first: the most frequent, each with its number and the place where it is first. count: of all."""

    first: tuple[tuple[str, int, int], ...] = ()
    count: int = 0

    def __add__(self, other: Twice) -> Twice:
        both = sorted((*self.first, *other.first), key=lambda found: (-found[1], found[2]))
        return Twice(tuple(both[:NAMED]), self.count + other.count)


@dataclass(frozen=True)
class Sorter:
    """Sorts buckets and gives their samples a split. limits: samples to keep of each bucket. edges: of `dataset.stratify`; None
    without it.
    """

    mapped: Mapped
    labels: LabelRows
    limits: np.ndarray
    rule: Rule
    edges: Edges | None = None

    def has_label(self, bucket: int) -> bool:
        """Whether one of the samples that may be held out has a label."""
        return labelled_in(self.items(bucket)).any

    def items(self, bucket: int) -> Items:
        return items_of(self.mapped.rows(bucket).slice(0, int(self.limits[bucket])), self.labels)

    def sort_bucket(self, bucket: int) -> tuple[Twice, np.ndarray]:
        """Writes the bucket's samples in their order. Returns how many of train each class has."""
        rows = self.mapped.rows(bucket)
        twice = _twice(rows)
        rows = rows.slice(0, int(self.limits[bucket]))
        items = items_of(rows, self.labels)
        splits = by_hash(items, self.rule) if self.edges is None else self.edges.splits(items, self.rule)
        rows = rows.set_column(rows.schema.get_field_index(SPLIT), SPLIT, pa.array(splits))
        write_table(self.mapped.place, numbered_file("sorted", bucket), rows.drop_columns([HASH, ROW]))
        return twice, self.labels.counts(rows.column(LABEL).filter(pa.array(splits == TRAIN)))


def _twice(rows: pa.Table) -> Twice:
    """rows: sorted by hash; where that is the same, by their place in the listing."""
    hashes = rows.column(HASH).to_numpy()
    same = hashes[1:] == hashes[:-1]
    if not same.any():
        return Twice()
    alike = rows.filter(pa.array(np.append(same, False) | np.append(False, same)))
    first: dict[str, int] = {}
    ids = alike.column(ID).to_pylist()
    for sample_id, row in zip(ids, alike.column(ROW).to_pylist(), strict=True):
        first.setdefault(sample_id, row)
    found = [(sample_id, count, first[sample_id]) for sample_id, count in Counter(ids).items() if count > 1]
    return sum((Twice((each,), 1) for each in found), Twice())


@dataclass(frozen=True)
class SplitFile:
    """What is known of a file of chosen samples: for each split, the packed lines for its fingerprint, its size and its tally; of
    pairs that lie side by side, the bits of those that begin a picture.
    """

    lines: list[bytes]
    sizes: np.ndarray
    tallies: list[np.ndarray]
    begins: list[np.ndarray]


@dataclass(frozen=True)
class Chooser:
    """Keeps some of the sorted samples of buckets."""

    place: Directory
    labels: LabelRows

    def choose_bucket(self, bucket: int, count: int, most: np.ndarray | None) -> SplitFile:
        """Writes the bucket's samples by split."""
        rows = self.kept(bucket, count, most)
        order = np.argsort(rows.column(SPLIT).to_numpy(), kind="stable")
        return self.written(numbered_file("chosen", bucket), rows.take(pa.array(order)))

    def kept(self, bucket: int, count: int, most: np.ndarray | None) -> pa.Table:
        """count: samples of the bucket. most: train samples of each class to keep; None keeps all."""
        rows = read_table(self.place, numbered_file("sorted", bucket), 0, count)
        if most is None:
            return rows
        splits = rows.column(SPLIT).to_numpy()
        kept, train = np.ones(len(splits), bool), np.flatnonzero(splits == TRAIN)
        kept[train] = are_first(self.labels.classes(rows.column(LABEL))[train], most)
        return rows.filter(pa.array(kept))

    def written(self, name: str, rows: pa.Table, begins: np.ndarray | None = None) -> SplitFile:
        """Writes samples that are in their order by split. begins: see `pairs.begin_pictures`."""
        rows = rows.drop_columns([name for name in rows.column_names if name == GROUP])
        write_table(self.place, name, rows)
        items, sizes = items_of(rows, self.labels), np.bincount(rows.column(SPLIT).to_numpy(), minlength=len(SPLITS))
        parts = [items.take(np.arange(stop - own, stop)) for own, stop in zip(sizes, np.cumsum(sizes), strict=True)]
        tallies = [tally(part.labels, self.labels.num_classes) for part in parts]
        bits = [] if begins is None else [*map(np.packbits, np.split(begins, np.cumsum(sizes)[:-1]))]
        return SplitFile([*map(_packed_lines, parts)], sizes, tallies, bits)


def _packed_lines(items: Items) -> bytes:
    """The lines of several classes are long, and mostly zeros."""
    packer, starts = zlib.compressobj(1), range(0, len(items), CHUNK)
    chunks = (items.take(np.arange(start, min(start + CHUNK, len(items)))) for start in starts)
    return b"".join([*(packer.compress(fingerprint_lines(chunk)) for chunk in chunks), packer.flush()])


def unpacked(packed: bytes) -> Iterator[bytes]:
    """A little at a time."""
    reader = zlib.decompressobj()
    while packed:
        yield reader.decompress(packed, UNPACKED_BYTES)
        packed = reader.unconsumed_tail
    yield reader.flush()


def labels_of(place: Directory, name: str, start: int, stop: int, ids: pa.Array) -> pa.ChunkedArray:
    """The labels of those samples, of some in a file, that have one of these ids."""
    rows = read_table(place, name, start, stop)
    return rows.column(LABEL).filter(pc.is_in(rows.column(ID), value_set=ids))
