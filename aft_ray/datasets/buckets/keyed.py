"""Samples moved to other buckets: files sorted by a key, and tasks that each read a range of keys from all of them.

The keys of every ROWS_OF_BATCHth row tell where a range lies in a file, to a batch, and which ranges have about as many rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from aft_ray.datasets.buckets import files
from aft_ray.datasets.buckets.files import numbered_file, read_table, write_table
from aft_ray.store.files import Directory

KEY = ".key"


def write_keyed(place: Directory, name: str, rows: pa.Table, keys: np.ndarray) -> np.ndarray:
    """Writes rows in the order of their keys, int64. Returns the first key of each batch."""
    order = np.argsort(keys, kind="stable")
    write_table(place, name, rows.append_column(KEY, pa.array(keys)).take(pa.array(order)))
    return keys[order][:: files.ROWS_OF_BATCH]


@dataclass(frozen=True)
class KeyedFiles:
    """Files that `write_keyed` has written. kind: begins their names. heads: of each file, the first key of each batch. edges:
    the least key of each bucket, then one above all.
    """

    place: Directory
    kind: str
    heads: tuple[np.ndarray, ...]
    edges: np.ndarray

    @classmethod
    def of(cls, place: Directory, kind: str, heads: Sequence[np.ndarray], rows: int) -> KeyedFiles:
        """Buckets of some `rows` rows; a key that more rows have is in one bucket."""
        edges = np.unique(np.sort(np.concatenate(heads))[:: max(1, rows // files.ROWS_OF_BATCH)])
        return cls(place, kind, tuple(heads), np.append(edges, np.iinfo(np.int64).max))

    def buckets(self) -> Iterator[tuple[int]]:
        return ((bucket,) for bucket in range(len(self.edges) - 1))

    def rows(self, bucket: int) -> pa.Table:
        """The rows of a bucket by the number of their file, and in a file by their key."""
        edges = self.edges[bucket : bucket + 2]
        tables = []
        for number, heads in enumerate(self.heads):
            first, last = np.searchsorted(heads, edges).tolist()
            start, stop = max(0, first - 1) * files.ROWS_OF_BATCH, last * files.ROWS_OF_BATCH
            if start < stop:
                table = read_table(self.place, numbered_file(self.kind, number), start, stop)
                first, last = np.searchsorted(table.column(KEY).to_numpy(), edges).tolist()
                tables.append(table.slice(first, last - first))
        return pa.concat_tables(tables).combine_chunks()
