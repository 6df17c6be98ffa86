"""How many samples make a shard, where the recipe does not say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from aft_ray.datasets.base import Listing
from aft_ray.datasets.rows import Rows
from aft_ray.store.quarantine import UNREADABLE

SHARD_BYTES = 32 << 20
SHARD_SAMPLES = (16, 512)
"""Size of a shard where the recipe gives none: this much content, within these limits of samples.

A shard travels through extraction as one decoded object: 512 pictures of 224 pixels are 77 MB, 300 of 518 pixels 240 MB.
"""
PROBED = 64
MOST_PAIRS = 32
"""Pairs of a picture that a shard makes room for: their texts and features are small, and grow with them."""


def samples_per_shard(splits: Sequence[Rows]) -> int:
    """Number of samples in a shard, from the mean size of some of the samples of all splits; of pairs the pictures count, since
    shards of few pictures would give a streamed batch many of its pictures twice.
    """
    starts = np.cumsum([0, *map(len, splits)])
    places = range(0, int(starts[-1]), max(1, int(starts[-1]) // PROBED))
    sizes = []
    for place in places:
        split = int(np.searchsorted(starts, place, side="right")) - 1
        row = place - int(starts[split])
        listing, indices = splits[split].part(row, row + 1)
        sizes.append(_num_bytes(listing, int(indices[0])))
    least, most = SHARD_SAMPLES
    return int(max(least, min(most, int(SHARD_BYTES * len(sizes) / max(1, sum(sizes))))) * pairs_per_picture(splits))


def _num_bytes(listing: Listing, index: int) -> int:
    """Size of a sample's content; 0 where it cannot be read."""
    known = listing.items[index].num_bytes
    if known is not None:
        return known
    try:
        content = listing.read(index)
    except UNREADABLE:
        return 0
    return sum(map(len, content)) if isinstance(content, tuple) else len(content)


def pairs_per_picture(splits: Sequence[Rows]) -> float:
    """Mean over all splits, at most MOST_PAIRS; 1 for samples that are no pairs, or whose groups have several pictures."""
    pairs = splits[0].pairs
    if pairs is None:
        return 1.0
    if splits[0].listing.uri is None and not all(_have_one_picture(*place) for place in _further_pairs(splits)):
        return 1.0
    return min(MOST_PAIRS, pairs)


def _further_pairs(splits: Sequence[Rows]) -> Iterator[tuple[Rows, int]]:
    """Some PROBED of the pairs that follow a pair with their picture, as a split and a row in it."""
    step = max(1, sum(int((~begins).sum()) for split in splits for begins in split.begins()) // PROBED)
    passed = 0
    for split in splits:
        start = 0
        for begins in split.begins():
            further = start + np.flatnonzero(~begins)
            yield from ((split, row) for row in further[-passed % step :: step].tolist())
            passed += len(further)
            start += len(begins)


def _have_one_picture(split: Rows, row: int) -> bool:
    """Whether the pair of this row and the one before have the same."""
    listing, indices = split.part(row - 1, row + 1)
    try:
        return len({listing.read(index)[0] for index in indices.tolist()}) == 1
    except UNREADABLE:
        return True
