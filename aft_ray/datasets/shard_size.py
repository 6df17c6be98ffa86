"""How many samples make a shard, where the recipe does not say."""

from __future__ import annotations

from collections.abc import Sequence

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


def samples_per_shard(splits: Sequence[Rows], pairs: float = 1.0) -> int:
    """Number of samples in a shard, from the mean size of some of the samples of all splits; of pairs the pictures count.

    pairs: of each picture. Shards of few pictures would give a streamed batch many of its pictures twice.
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
    return int(max(least, min(most, int(SHARD_BYTES * len(sizes) / max(1, sum(sizes))))) * pairs)


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
