"""Pairs of one picture lie side by side, in one shard: it is stored once, and decoded and embedded once for all its texts.

A pair's picture is known before its content is read: by its file, or else by its group. Without pictures that several pairs
share, everything is as for other samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aft_ray.datasets.base import Listing
from aft_ray.datasets.items import Items, Texts


def pictures_of(listing: Listing) -> np.ndarray | None:
    """(N,) a number for the picture of each pair; None if the samples are no pairs, or none is known to share its picture."""
    if listing.modality != "image+text" or (listing.uri is None and listing.columns.groups is None):
        return None
    return numbered(picture_names(listing.columns, listing.uri))


def picture_names(items: Items, uri: Callable[[int], str] | None) -> pa.ChunkedArray:
    """The name of each pair's picture: its file, or else its group. uri: as `Listing.uri`."""
    if uri is not None:
        return Texts(map(uri, range(len(items)))).column()
    return items.ids if items.groups is None else pc.coalesce(items.groups, items.ids)


def numbered(names: pa.ChunkedArray) -> np.ndarray:
    """A number for each name, the same for the same."""
    encoded = names.dictionary_encode().unify_dictionaries()
    return pa.chunked_array([chunk.indices for chunk in encoded.chunks], pa.int32()).to_numpy()


def side_by_side(indices: np.ndarray, pictures: np.ndarray | None) -> np.ndarray:
    """The same samples; those of a picture follow the first of them."""
    if pictures is None:
        return indices
    _, first, number = np.unique(pictures[indices], return_index=True, return_inverse=True)
    return indices[np.argsort(first[number], kind="stable")]


def begin_pictures(numbers: np.ndarray) -> np.ndarray:
    """Which pairs have another picture than the pair before. numbers: of their pictures."""
    return np.diff(numbers, prepend=numbers[:1] - 1) != 0


def cuts(begins: Iterable[np.ndarray], rows: int) -> list[int]:
    """Where shards of at most `rows` pairs begin, then the number of pairs: between pictures, where these are not larger.

    begins: which pairs begin a picture, some pairs at a time.
    """
    found, count, between = [0], 0, np.array([0])
    for some in begins:
        needed = int(np.searchsorted(between, found[-1], side="right")) - 1
        between = np.append(between[needed:], count + np.flatnonzero(some))
        count += len(some)
        while found[-1] + rows < count:
            latest = int(between[np.searchsorted(between, found[-1] + rows, side="right") - 1])
            found.append(latest if latest > found[-1] else found[-1] + rows)
    return [*found, count] if count > found[-1] else found
