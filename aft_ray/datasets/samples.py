"""The samples of a data set before they are written, in this process's memory here, on a disk in `buckets`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from aft_ray.datasets.base import Listing
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.pairs import pairs_per_picture, pictures_of, side_by_side
from aft_ray.datasets.rows import ListedRows, Rows
from aft_ray.datasets.shard_size import samples_per_shard
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.sample_recipe import has_pairs_apart, is_of_before

NAMED = 5
Manifests = Mapping[str, Mapping[str, Any]]


class Samples(Protocol):
    """All samples of a data set."""

    @property
    def listing(self) -> Listing:
        """Its facts; its items only where they are in memory."""

    @property
    def count(self) -> int:
        """How many samples there are."""

    def files(self) -> Iterable[str] | None:
        """Paths or URLs of samples that are files of their own, one of each folder at least; None if the links below
        `dataset.path` are still to be followed.
        """

    def choose(self, config: DatasetConfig, there: Manifests) -> dict[str, Rows]:
        """The rows of each split. there: splits that were written before.

        Raises InputError that names ids which are there twice or are not Unicode.
        """

    def samples_per_shard(self, splits: Sequence[Rows]) -> int:
        """Where the recipe does not say."""

    def check_unchanged(self) -> None:
        """Raises InputError that names raw data which changed since it was listed."""


@dataclass(frozen=True)
class Listed:
    """The samples of a listing that is in memory."""

    listing: Listing

    @property
    def count(self) -> int:
        return len(self.listing.items)

    def files(self) -> Iterable[str] | None:
        return None if self.listing.uri is None else map(self.listing.uri, range(self.count))

    def choose(self, config: DatasetConfig, there: Manifests) -> dict[str, Rows]:
        check_ids(self.listing)
        pictures = None if any(map(has_pairs_apart, there.values())) else pictures_of(self.listing)
        splits = choose_splits(self.listing, config, unlabelled_in_train=not any(map(is_of_before, there.values())))
        return {
            split: ListedRows(self.listing, side_by_side(indices, pictures), pictures)
            for split, indices in splits.items()
        }

    def samples_per_shard(self, splits: Sequence[Rows]) -> int:
        rows = [split for split in splits if isinstance(split, ListedRows)]
        indices = np.concatenate([split.indices for split in rows])
        return samples_per_shard(splits, pairs_per_picture(self.listing, indices, rows[0].pictures))

    def check_unchanged(self) -> None:
        """Nothing is compared: the samples were listed by this command."""


def check_ids(listing: Listing) -> None:
    """Raises InputError that names ids which are there twice or are not Unicode."""
    ids, hashes = listing.columns.ids, listing.columns.hashes
    if len(np.unique(hashes)) == len(hashes):
        return
    counts = Counter(ids.to_pylist())
    raise_twice(
        [(sample_id, count) for sample_id, count in counts.most_common(NAMED) if count > 1],
        sum(count > 1 for count in counts.values()),
    )


def raise_twice(first: Sequence[tuple[str, int]], count: int) -> None:
    """Raises InputError if ids are there twice. first: some of them, the most frequent first. count: of all."""
    if not count:
        return
    twice = [f"{sample_id!r} ({times} times)" for sample_id, times in first]
    extra = count - len(twice)
    raise InputError(f"Sample ids must differ: {', '.join(twice)}{f' and {extra} more' if extra else ''}.")
