"""Shards of samples from rows of a listing, in this process or in others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.datasets.base import Listing
from aft_ray.datasets.items import UNKNOWN
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.sources.pictures import check_picture
from aft_ray.models.images import open_picture
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.contents import PICTURE_COLUMNS, READERS, rows_by_picture
from aft_ray.store.prefetch import attempted, prefetched
from aft_ray.store.quarantine import UNREADABLE, quarantined_sample
from aft_ray.store.schema import samples_schema
from aft_ray.store.shards import ShardDirectory

THREADS = 4

Written = tuple[int, dict[str, Any] | None, list[dict[str, str]]]
"""A shard's number, its entry in the manifest unless it could not be written, and its quarantined samples."""
Part = tuple[Listing, np.ndarray]
"""Some samples: a listing, and their places in it."""


def samples_table(
    listing: Listing, indices: Sequence[int] | np.ndarray, config: DatasetConfig
) -> tuple[pa.Table, list[dict[str, str]]]:
    """A samples shard of some items of a listing, and the unreadable ones with their reasons."""
    rows, quarantined = [], []
    is_pair, once = listing.modality == "image+text", dict[Any, Any]()
    items = listing.columns.take(np.asarray(indices))
    sized = [
        (int(index), None if size == UNKNOWN else int(size)) for index, size in zip(indices, items.sizes, strict=True)
    ]
    contents = attempted(
        lambda found: _content(listing, *found, config), sized, threads=READERS if config.urls() else 0
    )
    for sample_id, code, content in zip(items.ids.to_pylist(), items.labels.codes, contents, strict=True):
        try:
            first, *others = content()
            if is_pair:
                first = once.setdefault(first, first)  # pairs of one picture keep it in memory once
            rows.append((sample_id, items.labels.values[code], first, *others))
        except InputError:  # about the whole source: it would be told for every sample
            raise
        except UNREADABLE as error:
            quarantined.append(quarantined_sample(sample_id, error))
    schema = samples_schema(listing.modality, listing.task, len(listing.classes), config.copy_content)
    columns = [
        _column([row[k] for row in rows], field.type, once=is_pair and field.name in PICTURE_COLUMNS)
        for k, field in enumerate(schema)
    ]
    return pa.table(columns, names=schema.names), quarantined


def _column(values: list[Any], kind: pa.DataType, *, once: bool) -> pa.Array:
    """once: equal values, if there are some, are stored once."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))} if once else {}
    if not 0 < len(places) < len(values):
        return pa.array(values, kind)
    codes = pa.array([places[value] for value in values], pa.int32())
    return pa.DictionaryArray.from_arrays(codes, pa.array(list(places), kind))


def _content(listing: Listing, index: int, size: int | None, config: DatasetConfig) -> tuple[Any, ...]:
    """The content columns of a sample of `size` bytes, if known. Raises one of UNREADABLE if it has none."""
    copy = config.copy_content
    stays = not copy and listing.modality == "image" and size is not None  # only its size is needed
    content = b"" if stays else listing.read(index)
    image, text = content if isinstance(content, tuple) else (content, content)
    columns: list[Any] = []
    if isinstance(image, bytes) and copy:
        open_picture(image, config.max_pixels).close()  # reads the head only
        columns.append(image)
    elif isinstance(image, bytes):
        assert listing.uri is not None, "prepare checked it"
        if stays and "://" not in listing.uri(index):
            check_picture(listing.uri(index))
        columns += [listing.uri(index), len(image) if size is None else size]
        if columns[-1] == 0:
            raise ValueError("the file is empty")
    if isinstance(text, str):
        if not text.strip():
            raise ValueError("its text is empty")
        text.encode()  # raises ValueError where it is not Unicode
        columns.append(text)
    return tuple(columns)


@dataclass(frozen=True)
class Writer:
    """Writes shards of one split. stamp: their fingerprint."""

    directory: ShardDirectory
    config: DatasetConfig
    stamp: Mapping[str, Any]

    def write_shards(self, shards: Sequence[int], listing: Listing, sizes: Sequence[int]) -> list[Written]:
        """Shards whose samples are the listing's, one shard after the other. sizes: samples of each."""
        stops = np.cumsum(sizes)
        places = {shard: np.arange(stop - size, stop) for shard, size, stop in zip(shards, sizes, stops, strict=True)}
        return list(self.written(shards, lambda shard: (listing, places[shard])))

    def written(self, shards: Sequence[int], part: Callable[[int], Part]) -> Iterator[Written]:
        """Writes shards in threads. part: the samples of each."""
        return prefetched(lambda shard: self._write(shard, *part(shard)), shards, threads=THREADS)

    def _write(self, shard: int, listing: Listing, indices: np.ndarray) -> Written:
        """Where too many samples are quarantined, the shard is not written."""
        table, quarantined = samples_table(listing, indices, self.config)
        if len(quarantined) > self.config.max_bad_samples:
            return shard, None, quarantined
        count = len(rows_by_picture(table))
        shared = {"num_pictures": count} if count < table.num_rows else {}
        entry = self.directory.write_shard(shard, table, self.stamp, quarantined=quarantined, **shared)
        return shard, entry, quarantined


def can_travel(listing: Listing) -> bool:
    """Whether other processes can read the samples' content."""
    return isinstance(listing.read, Lookup) and (listing.uri is None or isinstance(listing.uri, Lookup))


def portion(listing: Listing, indices: np.ndarray) -> Listing:
    """Some samples of a listing that can travel."""
    assert isinstance(listing.read, Lookup)
    uri = listing.uri.take(indices) if isinstance(listing.uri, Lookup) else None
    return replace(listing, items=listing.columns.take(indices), read=listing.read.take(indices), uri=uri)
