"""Which samples make up each split: the data set's own splits, or shares that depend on the samples' ids alone."""

from __future__ import annotations

import hashlib
from collections import Counter

from aft_ray.datasets.base import Listing
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.schema import SPLITS


def choose_splits(listing: Listing, config: DatasetConfig) -> dict[str, list[int]]:
    """Indices into `listing.items` per split, in the order of their hash: every shard is a random sample.

    Splits of the data set's own stay as they are. Missing ones are held out of train by the hash of a sample's id, or of its
    group, so a sample stays in its split when others come or go.
    """
    order = sorted(range(len(listing.items)), key=lambda index: _unit_hash("order", listing.items[index].sample_id))
    brought = {item.split for item in listing.items}
    test_fraction = 0.0 if "test" in brought else config.test_fraction
    held_out = test_fraction + (0.0 if "validation" in brought else config.validation_fraction)
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for index in order[: config.max_samples]:
        item = listing.items[index]
        split = item.split or "train"
        if split == "train":
            place = _unit_hash("split", item.sample_id if item.group is None else item.group)
            split = "test" if place < test_fraction else "validation" if place < held_out else "train"
        splits[split].append(index)
    splits["train"] = _fraction_of_each(listing, splits["train"], config.train_fraction)
    return splits


def _fraction_of_each(listing: Listing, indices: list[int], fraction: float) -> list[int]:
    """The first samples of each class, at least one; the first of all where a label is not a single class."""
    if fraction == 1:
        return indices
    classes = [label if isinstance(label := listing.items[index].label, int) else None for index in indices]
    wanted = {name: max(1, round(fraction * count)) for name, count in Counter(classes).items()}
    seen: Counter[int | None] = Counter()
    kept = []
    for index, name in zip(indices, classes, strict=True):
        seen[name] += 1
        if seen[name] <= wanted[name]:
            kept.append(index)
    return kept


def _unit_hash(salt: str, sample_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    digest = hashlib.sha256(f"{salt}:{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
