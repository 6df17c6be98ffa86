"""The samples of a data set before they are written, in this process's memory here, on a disk in `buckets`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from aft_ray.datasets.base import Listing
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.pairs import pictures_of, side_by_side
from aft_ray.datasets.rows import ListedRows, Rows
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
        splits = choose_splits(self.listing, config, unlabelled_in_train=not any(map(is_of_before, there.values())))
        pictures = None if any(map(has_pairs_apart, there.values())) else pictures_of(self.listing)
        pairs = None
        if pictures is not None:
            chosen = pictures[np.concatenate([*splits.values()])]
            pairs = pairs_of_picture(len(chosen), len(np.unique(chosen)), there)
        if pairs is None:
            pictures = None
        return {
            split: ListedRows(self.listing, side_by_side(indices, pictures), pictures, pairs)
            for split, indices in splits.items()
        }

    def check_unchanged(self) -> None:
        """Nothing is compared: the samples were listed by this command."""


def pairs_of_picture(num_pairs: int, num_pictures: int, there: Manifests) -> float | None:
    """How many pairs of all splits have a picture in common, on average; None if no two have. there: splits in the order of
    their pictures, which keep it.
    """
    return num_pairs / max(1, num_pictures) if there or num_pictures < num_pairs else None


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
