"""Which samples make up each split: the data set's own splits, or shares that depend on the samples' ids alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from aft_ray.datasets.base import Item, Label, Listing
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.schema import SPLITS, UNLABELED


def choose_splits(listing: Listing, config: DatasetConfig, *, unlabelled_in_train: bool = True) -> dict[str, list[int]]:
    """Indices into `listing.items` per split, in the order of their hash: every shard is a random sample.

    Splits of the data set's own stay as they are. Missing ones are held out of train, of samples with a label alone, by the
    hash of a sample's id, or of its group, so that a sample stays in its split when others come or go; with
    `dataset.stratify`, each class gives its share of them.
    unlabelled_in_train: samples of before were held out whether they have a label or not.
    """
    order = sorted(range(len(listing.items)), key=lambda index: _unit_hash("order", listing.items[index].sample_id))
    order = order[: config.max_samples]
    held_out = [index for index in order if listing.items[index].split in (None, "train")]
    if unlabelled_in_train:
        held_out = _of_use(listing, held_out)
    brought = {item.split for item in listing.items}
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    fractions = {split: 0.0 if split in brought else fraction for split, fraction in fractions.items()}
    chosen = (_by_class if config.stratify else _by_hash)(listing, held_out, fractions)
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for index in order:
        splits[chosen.get(index) or listing.items[index].split or "train"].append(index)
    splits["train"] = _fraction_of_each(listing, splits["train"], config.train_fraction)
    return splits


def _of_use(listing: Listing, indices: list[int]) -> list[int]:
    """Samples that are of use outside train: with a label, or of a group that has one. All where none has a label."""
    items = [listing.items[index] for index in indices]
    labelled = [item.label not in (None, UNLABELED) for item in items]
    groups = {item.group for item, known in zip(items, labelled, strict=True) if known} - {None}
    if not any(labelled):
        return indices
    found = zip(indices, items, labelled, strict=True)
    return [index for index, item, known in found if known or item.group in groups]


def _by_hash(listing: Listing, indices: Sequence[int], fractions: Mapping[str, float]) -> dict[int, str]:
    """The split of each sample that is held out: the first whose share, one after the other, holds the sample's place."""
    test, both = fractions["test"], fractions["test"] + fractions["validation"]
    places = {index: _place(listing.items[index]) for index in indices}
    return {index: "test" if place < test else "validation" for index, place in places.items() if place < both}


def _by_class(listing: Listing, indices: Sequence[int], fractions: Mapping[str, float]) -> dict[int, str]:
    """The split of each sample that is held out: the first places of each class, at least one where it has three samples."""
    of_class: dict[Label, list[int]] = {}
    for index in sorted(indices, key=lambda index: (_place(listing.items[index]), listing.items[index].sample_id)):
        of_class.setdefault(listing.items[index].label, []).append(index)
    chosen: dict[int, str] = {}
    for members in of_class.values():
        left = iter(members[:-1])  # one stays in train
        for split, fraction in fractions.items():
            least = int(len(members) >= len(SPLITS) and fraction > 0)
            chosen |= dict.fromkeys(islice(left, max(least, round(fraction * len(members)))), split)
    return chosen


def _place(item: Item) -> float:
    return _unit_hash("split", item.sample_id if item.group is None else item.group)


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
