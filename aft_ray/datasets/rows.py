"""The samples of one split in their order: in this process's memory here, on a disk in `buckets`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.base import Listing
from aft_ray.datasets.items import CHUNK, UNKNOWN, Coded, Items, taken, tally
from aft_ray.datasets.pairs import begin_pictures, cuts
from aft_ray.datasets.shard_writing import Part, Writer, Written, portion

Span = tuple[int, int, int]
"""A shard's number, its first row, and the row after its last."""


class Rows(Protocol):
    """The samples of one split in their order."""

    @property
    def listing(self) -> Listing:
        """The facts of the whole data set."""

    @property
    def pairs(self) -> float | None:
        """How many pairs of all splits have a picture in common, on average, if pairs of a picture lie side by side; None for
        samples in the order of their hash.
        """

    def __len__(self) -> int: ...

    def begins(self) -> Iterator[np.ndarray]:
        """Which pairs begin a picture, some pairs at a time."""

    def digest(self) -> str:
        """Of every sample's id, label and size."""

    def bounds(self, rows: int) -> list[int]:
        """Where shards of at most `rows` samples begin, then the number of samples."""

    def part(self, start: int, stop: int) -> Part:
        """Some samples, as places in a listing."""

    def written(self, writer: Writer, tasks: Tasks, groups: Sequence[Sequence[Span]]) -> Iterator[list[Written]]:
        """Every task writes a group of shards."""

    def tally_without(self, ids: Sequence[str]) -> np.ndarray:
        """The `tally` of the samples besides these."""


@dataclass(frozen=True)
class ListedRows:
    """Rows of a listing in memory, at the places `indices`. pictures: see `pictures_of`; None where `pairs` is."""

    listing: Listing
    indices: np.ndarray
    pictures: np.ndarray | None = None
    pairs: float | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def begins(self) -> Iterator[np.ndarray]:
        assert self.pictures is not None, "pairs"
        yield begin_pictures(self.pictures[self.indices])

    def digest(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, len(self.indices), CHUNK):
            digest.update(fingerprint_lines(self.listing.columns.take(self.indices[start : start + CHUNK])))
        return digest.hexdigest()[:16]

    def bounds(self, rows: int) -> list[int]:
        return bounds_of(self, rows)

    def part(self, start: int, stop: int) -> Part:
        return self.listing, self.indices[start:stop]

    def written(self, writer: Writer, tasks: Tasks, groups: Sequence[Sequence[Span]]) -> Iterator[list[Written]]:
        """The samples' rows of the listing are sent to the tasks."""

        def arguments() -> Iterator[tuple[list[int], Listing, list[int]]]:
            for group in groups:
                places = [self.indices[start:stop] for _, start, stop in group]
                own = portion(self.listing, np.concatenate(places))
                yield [shard for shard, _, _ in group], own, [*map(len, places)]

        return tasks(writer.write_shards, arguments())

    def tally_without(self, ids: Sequence[str]) -> np.ndarray:
        labels, codes = self.listing.columns.labels, self.listing.columns.labels.codes[self.indices]
        if ids:
            own = taken(self.listing.columns.ids, self.indices)
            codes = codes[~pc.is_in(own, value_set=pa.array(ids)).to_numpy()]
        return tally(Coded(labels.values, codes), len(self.listing.classes))


def bounds_of(rows: Rows, size: int) -> list[int]:
    """As `Rows.bounds`: between pictures, where pairs lie side by side."""
    if rows.pairs is not None:
        return cuts(rows.begins(), size)
    return [*range(0, len(rows), size), len(rows)]


def fingerprint_lines(items: Items) -> bytes:
    """A line for each sample with all that its split's fingerprint is about: id, label and size."""
    own, codes = np.unique(items.labels.codes, return_inverse=True)
    labels = pa.array([str(items.labels.values[code]) for code in own], pa.string()).take(pa.array(codes))
    sizes = pc.if_else(pa.array(items.sizes == UNKNOWN), "None", pa.array(items.sizes).cast(pa.string()))
    lines = pc.binary_join_element_wise(items.ids, labels, sizes, "\t").to_pylist()
    return "".join(f"{line}\n" for line in lines).encode()
