"""Which samples make up each split: the data set's own splits, or shares that depend on the samples' ids alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aft_ray.datasets.base import Listing
from aft_ray.datasets.items import UNKNOWN, Coded, Items, unit_hashes
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.schema import SPLITS

TRAIN, VALIDATION, TEST = range(len(SPLITS))
HELD_OUT = (TEST, VALIDATION)
"""Splits that are held out of train, in the order in which their shares of the places follow one another."""


def choose_splits(
    listing: Listing, config: DatasetConfig, *, unlabelled_in_train: bool = True
) -> dict[str, np.ndarray]:
    """Indices into `listing.items` per split, in the order of their hash: every shard is a random sample.

    Splits of the data set's own stay as they are. Missing ones are held out of train, of samples with a label alone, by the
    hash of a sample's id, or of its group, so that a sample stays in its split when others come or go; with
    `dataset.stratify`, each class gives its share of them.
    unlabelled_in_train: samples of before were held out whether they have a label or not.
    """
    order = np.argsort(listing.columns.hashes, kind="stable")[: config.max_samples]
    items = listing.columns.take(order)
    rule = Rule.of(config, listing.columns.brought)
    if unlabelled_in_train:
        rule = rule.sparing(labelled_in(items))
    splits = by_class(items, rule) if config.stratify else by_hash(items, rule)
    kept = first_of_each(items.labels, splits, config.train_fraction)
    return {name: order[kept & (splits == split)] for split, name in enumerate(SPLITS)}


@dataclass(frozen=True)
class Labelled:
    """The labels among the samples that may be held out. any: whether one has a label. groups: all groups with one."""

    any: bool
    groups: pa.Array


@dataclass(frozen=True)
class Rule:
    """How samples are held out of train. shares: of each split in HELD_OUT, 0 where the data brings it.

    spared: samples without a label, and without a labelled one in their group, stay in train; None holds out all alike.
    seed: another one holds out other samples.
    """

    shares: Mapping[int, float]
    seed: int = 0
    spared: Labelled | None = None

    @classmethod
    def of(cls, config: DatasetConfig, brought: set[str | None]) -> Rule:
        fractions = {TEST: config.test_fraction, VALIDATION: config.validation_fraction}
        shares = {split: 0.0 if SPLITS[split] in brought else share for split, share in fractions.items()}
        return cls(shares, config.split_seed)

    def sparing(self, found: Labelled) -> Rule:
        """Samples without a label are of no use outside train, unless none has a label."""
        return replace(self, spared=found if found.any else None)

    def may_be_held_out(self, items: Items) -> np.ndarray:
        free = (items.splits == UNKNOWN) | (items.splits == TRAIN)
        if self.spared is None:
            return free
        has_use = items.labels.known[items.labels.codes]
        if items.groups is not None:
            has_use |= pc.is_in(items.groups, value_set=self.spared.groups, skip_nulls=True).to_numpy()
        return free & has_use


def labelled_in(items: Items) -> Labelled:
    """The labels among those samples that no split of the data's own keeps out of train."""
    found = (items.splits <= TRAIN) & items.labels.known[items.labels.codes]
    groups = items.groups.filter(pa.array(found)).unique().drop_null() if items.groups is not None else pa.array([])
    return Labelled(bool(found.any()), groups.cast(pa.string()))


def by_hash(items: Items, rule: Rule) -> np.ndarray:
    """The split of each sample: the first whose share, one after the other, holds the sample's place; train is the rest."""
    splits = np.where(items.splits == UNKNOWN, TRAIN, items.splits).astype(np.int8)
    if not any(rule.shares.values()):
        return splits
    held_out = np.flatnonzero(rule.may_be_held_out(items))
    places = places_of(items.take(held_out), rule.seed)
    both = rule.shares[TEST] + rule.shares[VALIDATION]
    splits[held_out[places < both]] = VALIDATION
    splits[held_out[places < rule.shares[TEST]]] = TEST
    return splits


def by_class(items: Items, rule: Rule) -> np.ndarray:
    """The split of each sample: each class gives its first places, at least one where it has three samples."""
    splits = np.where(items.splits == UNKNOWN, TRAIN, items.splits).astype(np.int8)
    held_out = np.flatnonzero(rule.may_be_held_out(items))
    found = items.take(held_out)
    ids = np.argsort(pc.array_sort_indices(found.ids.combine_chunks()).to_numpy())  # an id's place among all
    order = np.lexsort((ids, places_of(found, rule.seed)))
    for members in alike(found.labels.codes[order]):
        left = held_out[order[members]]
        for split, count in zip(HELD_OUT, held_out_of_class(rule, len(members)), strict=True):
            splits[left[:count]], left = split, left[count:]
    return splits


def held_out_of_class(rule: Rule, count: int) -> list[int]:
    """How many samples a class of `count` gives to each split in HELD_OUT. One stays in train."""
    left, found = max(0, count - 1), []
    for split in HELD_OUT:
        least = int(count >= len(SPLITS) and rule.shares[split] > 0)
        found.append(min(left, max(least, round(rule.shares[split] * count))))
        left -= found[-1]
    return found


def first_of_each(labels: Coded, splits: np.ndarray, fraction: float) -> np.ndarray:
    """Which samples to keep: of train the first of each class, at least one, or of all where a label is no single class."""
    kept = np.ones(len(splits), bool)
    if fraction == 1:
        return kept
    train = np.flatnonzero(splits == TRAIN)
    classes = classes_of(labels)[labels.codes[train]]
    kept[train] = are_first(classes, shares_of(np.bincount(classes), fraction))
    return kept


def shares_of(counts: np.ndarray, fraction: float) -> np.ndarray:
    """How many samples of each class to keep."""
    return np.array([max(1, round(fraction * count)) for count in counts.tolist()], np.int64)


def are_first(classes: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Whether each sample is among the first samples of its class. most: number of these for each class."""
    order = np.argsort(classes, kind="stable")
    counts = np.bincount(classes)
    rank = np.empty(len(classes), np.int64)
    rank[order] = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank < most[classes]


def alike(numbers: np.ndarray) -> list[np.ndarray]:
    """The places of each number, in their order."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def classes_of(labels: Coded) -> np.ndarray:
    """For each of the labels' values a number that is its class's alone; all that are no single class have one in common."""
    numbers: dict[int | None, int] = {}
    names = [label if isinstance(label, int) else None for label in labels.values]
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def places_of(items: Items, seed: int) -> np.ndarray:
    """A number in [0, 1) for each sample, the same for a group."""
    salt = f"split {seed}" if seed else "split"
    return unit_hashes(salt, items.ids if items.groups is None else pc.coalesce(items.groups, items.ids))
