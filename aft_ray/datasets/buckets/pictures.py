"""Pairs of one picture side by side, as `pairs.side_by_side` has them: two more passes over the chosen samples.

A task writes the chosen pairs of a bucket by the hash of their picture's name. A task then has all pairs of some pictures, finds
each picture's first place in its split, and writes the pairs by this place. In a range of places they are in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.buckets.files import numbered_file
from aft_ray.datasets.buckets.keyed import KEY, KeyedFiles, write_keyed
from aft_ray.datasets.buckets.mapping import SPLIT, contents_of, items_of
from aft_ray.datasets.buckets.sorting import Chooser, SplitFile
from aft_ray.datasets.items import unit_hashes
from aft_ray.datasets.pairs import begin_pictures, numbered, picture_names
from aft_ray.store.schema import SPLITS

CHOSEN, GATHERED, ORDERED = "chosen", "gathered", "ordered"
"""Files of the chosen pairs: by picture, by the first place of their picture, in their order."""
NAME, PLACE = ".picture", ".place"


@dataclass(frozen=True)
class PairChooser:
    """Keeps some of the sorted pairs of buckets. uris: as `Plan.uris`. starts: of each bucket, the samples in those before; then
    their number.
    """

    chooser: Chooser
    uris: Callable[[pa.Table], Callable[[int], str]] | None
    starts: np.ndarray

    def choose_pairs(self, bucket: int, count: int, most: np.ndarray | None) -> np.ndarray:
        """Writes the pairs of a bucket by picture. Returns the file's heads."""
        rows = self.chooser.kept(bucket, count, most)
        names = picture_names(items_of(rows, self.chooser.labels), self.uris and self.uris(contents_of(rows)))
        places = rows.column(SPLIT).to_numpy() * self.starts[-1] + self.starts[bucket] + np.arange(len(rows))
        keys = (unit_hashes("picture", names) * 2**53).astype(np.int64)
        rows = rows.append_column(NAME, names).append_column(PLACE, pa.array(places))
        return write_keyed(self.chooser.place, numbered_file(CHOSEN, bucket), rows, keys)


@dataclass(frozen=True)
class Gatherer:
    """chosen: the pairs by picture."""

    chosen: KeyedFiles

    def gather_pairs(self, bucket: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Writes the pairs of some pictures by the first place of each picture in its split. Returns the file's heads, and how
        many pairs and pictures there are.
        """
        rows = self.chosen.rows(bucket)  # those of one picture by their places, in a bucket as among buckets
        pictures = numbered(rows.column(NAME))
        of_split = pictures.astype(np.int64) * len(SPLITS) + rows.column(SPLIT).to_numpy()
        _, first, number = np.unique(of_split, return_index=True, return_inverse=True)
        keys = rows.column(PLACE).to_numpy()[first[number]]
        own = rows.drop_columns([KEY, NAME, PLACE])
        heads = write_keyed(self.chosen.place, numbered_file(GATHERED, bucket), own, keys)
        return heads, (len(pictures), len(np.unique(pictures)))


@dataclass(frozen=True)
class Orderer:
    """gathered: the pairs by the first place of their picture."""

    chooser: Chooser
    gathered: KeyedFiles

    def order_bucket(self, bucket: int) -> SplitFile:
        rows = self.gathered.rows(bucket)
        keys = rows.column(KEY).to_numpy()
        order = np.argsort(keys, kind="stable")
        own = rows.drop_columns([KEY]).take(pa.array(order))
        return self.chooser.written(numbered_file(ORDERED, bucket), own, begin_pictures(keys[order]))


def by_picture(
    chooser: PairChooser, given: Iterable[tuple[int, int, np.ndarray | None]], tasks: Tasks, rows: int
) -> tuple[tuple[int, int], Iterator[SplitFile]]:
    """How many pairs and pictures are chosen, and the files in which the pairs lie in their order. given: of `choose_pairs`."""
    place = chooser.chooser.place
    chosen = KeyedFiles.of(place, CHOSEN, [*tasks(chooser.choose_pairs, given)], rows)
    heads, counts = zip(*tasks(Gatherer(chosen).gather_pairs, chosen.buckets()), strict=True)
    gathered = KeyedFiles.of(place, GATHERED, heads, rows)
    num_pairs, num_pictures = map(sum, zip(*counts, strict=True))
    return (num_pairs, num_pictures), tasks(Orderer(chooser.chooser, gathered).order_bucket, gathered.buckets())
