"""Samples that no process holds in memory: tasks sort them on disk, in buckets by the hash of their ids.

1. `mapping`: a task reads a few parts of the source and writes their samples by hash, with the number in each range of hashes.
2. Ranges are joined to buckets of some BUCKET_ROWS samples. The counts say how many of each `max_samples` leaves.
3. `sorting`: a task sorts a bucket, finds ids that are there twice, and gives each sample its split, as `held_out` does. For
   `stratify`, `strata` has found before how far the places of each class reach that are held out.
4. The counts of each class say how many of each bucket `train_fraction` leaves. A task keeps these, in the order of the splits.
   Pairs that may have a picture in common pass through `pictures` first.
5. The counts of each split say in which buckets a shard's samples lie. A task reads these and writes a few shards.

The result is the same bit for bit as of samples in memory. A task that runs twice writes the same file twice. Files of the
first pass serve the next command too; the others are made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.base import Content, Listing, raise_faults
from aft_ray.datasets.buckets.copies import CopyReader
from aft_ray.datasets.buckets.files import working_place
from aft_ray.datasets.buckets.groups import mixed_groups
from aft_ray.datasets.buckets.labels import LabelRows
from aft_ray.datasets.buckets.mapping import Mapped, map_parts, mapped_file
from aft_ray.datasets.buckets.pictures import ORDERED, PairChooser, by_picture
from aft_ray.datasets.buckets.rows import BucketRows
from aft_ray.datasets.buckets.sorting import Chooser, Sorter, SplitFile, Twice, unpacked
from aft_ray.datasets.buckets.strata import Strata, edges_of
from aft_ray.datasets.held_out import Labelled, Rule, shares_of
from aft_ray.datasets.items import UNKNOWN, Items
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.parts import Head, Plan, Reader, Whole, listing_with
from aft_ray.datasets.rows import Rows
from aft_ray.datasets.samples import Manifests, pairs_of_picture, raise_twice
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.files import Directory
from aft_ray.store.sample_recipe import has_pairs_apart, is_of_before
from aft_ray.store.schema import SPLITS

__all__ = ["Bucketed", "in_buckets", "working_place"]

BUCKET_ROWS = 200_000


@dataclass(frozen=True)
class Bucketed:
    """The samples of a plan in files. states: of its parts, when they were read. brought: splits that the data set brings.
    of_tables: the files that tables name, as `in_each_folder`."""

    plan: Plan
    head: Head
    states: Sequence[Any]
    mapped: Mapped
    brought: frozenset[int]
    of_tables: tuple[str, ...]
    tasks: Tasks

    @cached_property
    def listing(self) -> Listing:
        return listing_with(self.plan, self.head, Items.of(()), pa.table({}), Lookup(self._reader(), pa.table({})))

    def _reader(self) -> Callable[[pa.Table], Callable[[int], Content]]:
        if not self.plan.copied:
            return Reader(self.plan, self.head.modality)
        return CopyReader(self.mapped.place, self.mapped.files, self.plan, self.head.modality)

    @cached_property
    def labels(self) -> LabelRows:
        return LabelRows(self.head.task, self.head.labels, len(self.head.classes))

    @property
    def count(self) -> int:
        return int(self.mapped.sizes.sum())

    def files(self) -> Iterable[str]:
        """Links below `dataset.path` were followed before the first file of rows was written."""
        return self.of_tables

    def choose(self, config: DatasetConfig, there: Manifests) -> dict[str, Rows]:
        sorter = self._sorter(config, spares=not any(map(is_of_before, there.values())))
        if config.stratify:
            sorter = replace(sorter, edges=edges_of(Strata(sorter), self.tasks, [*self._each_bucket()]))
        twice, of_classes = Twice(), []
        for found, own in self.tasks(sorter.sort_bucket, self._each_bucket()):
            twice += found
            of_classes.append(own)
        raise_twice([(sample_id, times) for sample_id, times, _ in twice.first], twice.count)
        shares = self._shares(of_classes, config.train_fraction)
        given = ((bucket, int(sorter.limits[bucket]), most) for bucket, most in enumerate(shares))
        chooser = Chooser(self.mapped.place, self.labels)
        if not self._may_share_pictures() or any(map(has_pairs_apart, there.values())):
            return self._rows("chosen", self.tasks(chooser.choose_bucket, given))
        starts = np.cumsum([0, *sorter.limits])
        counts, files = by_picture(PairChooser(chooser, self.plan.uris, starts), given, self.tasks, BUCKET_ROWS)
        return self._rows(ORDERED, files, pairs_of_picture(*counts, there))

    def _may_share_pictures(self) -> bool:
        return self.head.modality == "image+text" and (self.plan.uris is not None or self.mapped.has_groups)

    def _each_bucket(self) -> Iterator[tuple[int]]:
        return ((bucket,) for bucket in range(len(self.mapped.sizes)))

    def _sorter(self, config: DatasetConfig, spares: bool) -> Sorter:
        """spares: whether samples without a label stay in train, if one has a label."""
        sizes = self.mapped.sizes
        left = (self.count if config.max_samples is None else config.max_samples) - (np.cumsum(sizes) - sizes)
        brought = {None if split == UNKNOWN else SPLITS[split] for split in self.brought}
        sorter = Sorter(self.mapped, self.labels, np.clip(left, 0, sizes), Rule.of(config, brought))
        if not spares:
            return sorter
        has_label = any(self.tasks(sorter.has_label, self._each_bucket()))  # mostly the first has one
        has_groups = has_label and self.mapped.has_groups
        groups = mixed_groups(sorter, self.tasks) if has_groups else pa.array([], pa.string())
        return replace(sorter, rule=sorter.rule.sparing(Labelled(has_label, groups)))

    def _shares(self, counts: Sequence[np.ndarray], fraction: float) -> Iterator[np.ndarray | None]:
        """For each bucket, how many train samples of each class are kept; None for all. counts: of each bucket's classes."""
        if fraction == 1:
            yield from (None for _ in counts)
            return
        left = shares_of(np.sum(counts, axis=0), fraction)
        for count in counts:
            yield np.maximum(left, 0)
            left = left - count

    def _rows(self, kind: str, files: Iterable[SplitFile], pairs: float | None = None) -> dict[str, Rows]:
        """kind: begins the files' names. pairs: see `Rows.pairs`."""
        digests = [hashlib.sha256() for _ in SPLITS]
        tallies = np.zeros((len(SPLITS), self.labels.num_classes + 1), np.int64)
        sizes, bits = [], []
        for file in files:
            for digest, own in zip(digests, file.lines, strict=True):
                for part in unpacked(own):
                    digest.update(part)
            tallies += np.array(file.tallies)
            sizes.append(file.sizes)
            bits.append(file.begins)
        found = np.array(sizes)
        offsets = np.cumsum(found, axis=1) - found
        return {
            split: BucketRows(
                self.mapped.place,
                kind,
                self.plan,
                self.head,
                self.labels,
                offsets[:, number],
                np.cumsum([0, *found[:, number]]),
                digests[number].hexdigest()[:16],
                tallies[number],
                self._reader(),
                pairs,
                tuple(own[number] for own in bits if own),
            )
            for number, split in enumerate(SPLITS)
        }

    def check_unchanged(self) -> None:
        raise_faults(
            f"{name} changed while its samples were written. Run 'aft-ray prepare --overwrite'."
            for name in dict.fromkeys(self.plan.changed(self.states, self.tasks))
        )


def in_buckets(plan: Plan, config: DatasetConfig, place: Directory, tasks: Tasks) -> Bucketed:
    """The samples of a plan, written to `place`. Raises InputError as the plan's parts and its head do."""
    states = plan.states()
    names = map_parts(plan, config, states, place, tasks)
    whole, codes, bins, brought, has_groups = Whole(), [], [], frozenset[int](), False
    for name in names:
        file = mapped_file(place, name)
        has_groups |= file.has_groups
        codes.append(whole.add(file.facts))
        bins.append(file.bins)
        brought |= file.brought
    head = plan.head(whole.facts(), whole.digest())
    counts = np.array([file.sum() for file in bins])
    edges = bucket_edges(np.sum(bins, axis=0), BUCKET_ROWS)
    bounds = np.array([np.concatenate([[0], np.cumsum(file)])[edges] for file in bins])
    starts = np.cumsum(counts) - counts
    mapped = Mapped(place, tuple(names), tuple(codes), bounds, starts, has_groups, bool(plan.copied))
    return Bucketed(plan, head, states, mapped, brought, tuple(whole.files.values()), tasks)


def bucket_edges(bins: np.ndarray, rows: int) -> np.ndarray:
    """Where buckets begin among the bins, then the number of bins: a bucket has the bins that end in the same range of `rows`
    samples, and a sample at least.
    """
    ends = np.cumsum(bins)
    used = np.flatnonzero(bins)
    number = (ends[used] - 1) // rows
    last = used[np.flatnonzero(np.diff(number))]
    return np.concatenate([[0], last + 1, [len(bins)]])
