"""The bytes of a sample's picture, from its shard or from where it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import filesystem_of, is_url, place_at
from aft_ray.store.files import Directory
from aft_ray.store.parquet import numbers_of
from aft_ray.store.prefetch import attempted

PICTURE_COLUMNS = ("image", "image_uri")
"""A samples shard of pictures has one of these: their bytes, or where they lie."""
IMAGE_COLUMNS = (*PICTURE_COLUMNS, "num_bytes")
"""All columns about pictures."""

READERS = 8
"""Threads that read pictures behind URLs, where each waits for the store."""


def contents(samples: pa.Table, rows: Sequence[int]) -> Iterator[Callable[[], bytes]]:
    """For each of the rows a function that gives its picture or raises, as `content_reader` does. URLs are read ahead."""
    uris = samples.column("image_uri") if "image_uri" in samples.column_names else ()
    return attempted(
        content_reader(samples), rows, threads=READERS if any(is_url(uri.as_py()) for uri in uris[:1]) else 0
    )


def rows_by_picture(samples: pa.Table) -> list[np.ndarray]:
    """The rows of each picture of a samples shard; a row is a picture of its own unless the shard stores pictures once."""
    names = [name for name in PICTURE_COLUMNS if name in samples.column_names]
    column = samples.column(names[0] if names else "sample_id").combine_chunks()
    if not (len(column) and pa.types.is_dictionary(column.type)):
        return list(np.arange(len(column))[:, None])
    codes = numbers_of(column.indices)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def content_reader(samples: pa.Table) -> Callable[[int], bytes]:
    """`read(row)` gives the encoded bytes of a samples shard's picture, from the shard or from where it lies.

    `read` raises OSError if there is no file, InputError if the file is not what it was when the samples were prepared.
    """
    if "image" in samples.column_names:
        images = samples.column("image")
        return lambda row: images[row].as_py()
    uris, sizes = samples.column("image_uri").to_pylist(), samples.column("num_bytes").to_pylist()
    place_of = lru_cache(maxsize=8)(lambda parent: Directory(*filesystem_of(parent)))

    def content_at(uri: str) -> bytes:
        if is_url(uri):
            return place_at(uri).read_bytes()
        parent, _, name = uri.rpartition("/")
        return place_of(parent).read(name)

    def read(row: int) -> bytes:
        content = content_at(uris[row])
        if len(content) != sizes[row]:
            raise InputError(
                f"{uris[row]} has {len(content)} bytes and had {sizes[row]} when it was prepared."
                " Run 'aft-ray prepare --overwrite'."
            )
        return content

    return read
