"""Pairs of one picture lie side by side, in one shard: it is stored once, and decoded and embedded once for all its texts.

A pair's picture is known before its content is read: by its file, or else by its group. Without pictures that several pairs
share, everything is as for other samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aft_ray.datasets.base import Listing
from aft_ray.datasets.items import Texts
from aft_ray.store.quarantine import UNREADABLE

MOST_PAIRS = 32
"""Pairs of a picture that a shard makes room for: their texts and features are small, and grow with them."""
PROBED = 64


def pictures_of(listing: Listing) -> np.ndarray | None:
    """(N,) a number for the picture of each pair; None if no picture has two, or the samples are no pairs."""
    columns = listing.columns
    if listing.modality != "image+text":
        return None
    if listing.uri is not None:
        names = Texts(map(listing.uri, range(len(columns)))).column()
    elif columns.groups is not None:
        names = pc.coalesce(columns.groups, columns.ids)
    else:
        return None
    encoded = names.dictionary_encode().unify_dictionaries()
    numbers = pa.chunked_array([chunk.indices for chunk in encoded.chunks], pa.int32()).to_numpy()
    return numbers if len(np.unique(numbers)) < len(numbers) else None


def side_by_side(indices: np.ndarray, pictures: np.ndarray | None) -> np.ndarray:
    """The same samples; those of a picture follow the first of them."""
    if pictures is None:
        return indices
    _, first, number = np.unique(pictures[indices], return_index=True, return_inverse=True)
    return indices[np.argsort(first[number], kind="stable")]


def cuts(indices: np.ndarray, pictures: np.ndarray | None, rows: int) -> list[int]:
    """Where shards of at most `rows` samples begin, then the number of samples: between pictures, where these are not larger."""
    count = len(indices)
    if pictures is None:
        return [*range(0, count, rows), count]
    between = np.concatenate([[0], np.flatnonzero(np.diff(pictures[indices])) + 1, [count]])
    found = [0]
    while found[-1] < count:
        latest = int(between[np.searchsorted(between, found[-1] + rows, side="right") - 1])
        found.append(latest if latest > found[-1] else min(found[-1] + rows, count))
    return found


def pairs_per_picture(listing: Listing, indices: np.ndarray, pictures: np.ndarray | None) -> float:
    """Mean over these samples, at most MOST_PAIRS; 1 for samples that are no pairs, or whose groups have several pictures."""
    if pictures is None:
        return 1.0
    numbers = pictures[indices]
    alike = np.flatnonzero(numbers[:-1] == numbers[1:])
    tried = alike[:: max(1, len(alike) // PROBED)] if listing.uri is None else ()
    if not all(_have_one_picture(listing, indices[place : place + 2].tolist()) for place in tried):
        return 1.0
    return min(MOST_PAIRS, len(numbers) / len(np.unique(numbers)))


def _have_one_picture(listing: Listing, pairs: Sequence[int]) -> bool:
    try:
        return len({listing.read(index)[0] for index in pairs}) == 1
    except UNREADABLE:
        return True
