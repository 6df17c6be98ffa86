"""The bytes of a sample's picture, from its shard or from where it lies."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pyarrow as pa

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import filesystem_of, is_url, place_at
from aft_ray.store.files import Directory

IMAGE_COLUMNS = ("image", "image_uri", "num_bytes")
"""What a samples shard may have of a picture: its bytes, or where they lie."""


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
