"""The shards of one split: from a listing's items to Parquet files and a manifest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.base import Listing
from aft_ray.datasets.items import CHUNK, UNKNOWN, Items, Label, taken
from aft_ray.datasets.pairs import cuts
from aft_ray.datasets.shard_writing import THREADS, Written, portion, write_shard, write_shards
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.own_files import delete_own_files, foreign_shards
from aft_ray.store.prefetch import prefetched
from aft_ray.store.sample_recipe import DECODING, ORDER, recipe_hash, sample_recipe
from aft_ray.store.schema import UNLABELED
from aft_ray.store.shards import ShardDirectory

SHARDS_OF_TASK = 16
"""Shards that one task of a cluster writes: seconds of work, and little to do again when it is lost."""


def source_of(config: DatasetConfig) -> str | None:
    """The data set's name or the kind of its source. Its place is no part of the samples' identity."""
    return config.name or config.source


@dataclass(frozen=True)
class SplitShards:
    """One split on its way to disk: `indices` into the listing, at most `rows` of them to a shard.

    pictures: see `pictures_of`. made: entries of the manifest for the shards that this command has written.
    """

    directory: ShardDirectory
    name: str
    listing: Listing
    indices: np.ndarray
    config: DatasetConfig
    rows: int
    pictures: np.ndarray | None = None
    made: dict[int, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for start in range(0, len(self.indices), CHUNK):
            digest.update(fingerprint_lines(self.listing.columns.take(self.indices[start : start + CHUNK])))
        side = self.listing.truncation_side
        return {
            "dataset": source_of(self.config),
            "split": self.name,
            "samples": digest.hexdigest()[:16],
            "samples_per_shard": self.rows,
            "copy": self.config.copy_content,
            "task": self.listing.task,
            **self.listing.facts,
            **({"truncation_side": side} if side else {}),
            **self._decoding(),
            **({ORDER: "picture"} if self.pictures is not None else {}),
            "recipe": recipe_hash(self.config),
        }

    def _decoding(self) -> dict[str, Any]:
        """How pictures are decoded; nothing for texts, and where it is as it was before there was a choice."""
        found = {key: getattr(self.config, key) for key in DECODING}
        return {key: value for key, value in found.items() if "image" in self.listing.modality and value is not None}

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """The fingerprint written to shards. A shard made again gets the one of its split, which may be of an older version."""
        manifest = self.directory.manifest()
        return manifest["fingerprint"] if manifest else self.fingerprint

    @property
    def num_shards(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def bounds(self) -> list[int]:
        """Where each shard begins in `indices`, then their number."""
        return cuts(self.indices, self.pictures, self.rows)

    def missing_shards(self) -> list[int]:
        try:
            missing = self.directory.missing_shards(range(self.num_shards), self.fingerprint)
            self._check_places(missing)
            return missing
        except InputError as error:
            if self.directory.manifest() is not None:
                raise InputError(f"The workspace holds samples of another setting: {error}") from error
        if foreign := foreign_shards(self.directory):
            raise InputError(
                f"{self.directory} holds {', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}, damaged or not"
                " written by aft-ray. Move that away and run again."
            )
        delete_own_files(self.directory)  # left by a command that never finished, of samples no longer asked for
        return list(range(self.num_shards))

    def _check_places(self, missing: Sequence[int]) -> None:
        """Raises InputError if pictures that were not copied lie elsewhere now."""
        shard = next((shard for shard in range(self.num_shards) if shard not in missing), None)
        if self.config.copy_content or self.listing.uri is None or shard is None:
            return
        places = {
            self.listing.items[index].sample_id: self.listing.uri(index) for index in self._indices(shard).tolist()
        }
        for row in self.directory.read_shard(shard, ["sample_id", "image_uri"]).slice(0, 1).to_pylist():
            if row["image_uri"] != places[row["sample_id"]]:
                raise InputError(
                    f"with dataset.copy false, pictures are read from where they lay, {row['image_uri']}; this one is now"
                    f" {places[row['sample_id']]}. Run 'aft-ray prepare --overwrite'"
                )

    def write(self, shards: Sequence[int], tasks: Tasks | None = None) -> Iterator[list[dict[str, str]]]:
        """Writes each shard, in `tasks` if there are any, and yields its quarantined samples, with their reasons."""
        for shard, entry, quarantined in self._written(shards) if tasks is None else self._written_in(tasks, shards):
            if entry is not None:
                self.made[shard] = entry
            yield quarantined

    def _written(self, shards: Sequence[int]) -> Iterator[Written]:
        def write(shard: int) -> Written:
            return write_shard(self.directory, shard, self.listing, self._indices(shard), self.config, self.stamp)

        return prefetched(write, shards, threads=THREADS)

    def _written_in(self, tasks: Tasks, shards: Sequence[int]) -> Iterator[Written]:
        """A task writes a few shards from their samples' rows of the listing."""
        groups = [shards[start : start + SHARDS_OF_TASK] for start in range(0, len(shards), SHARDS_OF_TASK)]

        def arguments() -> Iterator[tuple[Any, ...]]:
            for group in groups:
                indices = [self._indices(shard) for shard in group]
                sizes = [len(own) for own in indices]
                yield (
                    self.directory,
                    group,
                    portion(self.listing, np.concatenate(indices)),
                    sizes,
                    self.config,
                    self.stamp,
                )

        for written in tasks(write_shards, arguments()):
            yield from written

    def _indices(self, shard: int) -> np.ndarray:
        return self.indices[self.bounds[shard] : self.bounds[shard + 1]]

    @cached_property
    def entries(self) -> dict[int, dict[str, Any]]:
        """What the manifest says of each shard, once all are there."""
        return self.directory.entries(self.num_shards, self.made)

    def is_empty(self) -> bool:
        """Whether every sample of the split, whose shards are all there, is quarantined."""
        manifest = self.directory.manifest() if not self.made else None
        found = manifest["shards"] if manifest else self.entries.values()
        return not any(entry["num_samples"] for entry in found)

    def told_empty(self, reasons: Mapping[str, str]) -> str:
        """The fault of a split that is empty. reasons: of the samples that this command quarantined, by id."""
        first = self.listing.items[int(self.indices[0])].sample_id
        example = f" ({first}: {reasons[first]})" if first in reasons else ""
        return (
            f"Split {self.name} would be empty: all its {len(self.indices)} samples are quarantined{example}."
            " Mend or remove them and run 'aft-ray prepare --overwrite'."
        )

    def finish(self) -> dict[str, Any]:
        """The split's manifest, written if it is not there yet or a shard was made again."""
        manifest = self.directory.manifest()
        if manifest is not None and not self.made:
            return manifest
        counts = self._kept_labels()
        return self.directory.write_manifest(
            self.num_shards,
            self.stamp,
            entries=self.entries,
            modality=self.listing.modality,
            task=self.listing.task,
            classes=list(self.listing.classes),
            samples_per_class=samples_per_class(counts, self.listing.classes),
            num_unlabelled=sum(count for label, count in counts if label is None or label == UNLABELED),
            truncation_side=self.listing.truncation_side,
            recipe=sample_recipe(self.config),
        )

    def _kept_labels(self) -> list[tuple[Label, int]]:
        """How many samples that are not quarantined have each label."""
        labels, codes = self.listing.columns.labels, self.listing.columns.labels.codes[self.indices]
        put_aside = [sample["sample_id"] for entry in self.entries.values() for sample in entry.get("quarantined", ())]
        if put_aside:
            ids = taken(self.listing.columns.ids, self.indices)
            codes = codes[~pc.is_in(ids, value_set=pa.array(put_aside)).to_numpy()]
        return list(zip(labels.values, np.bincount(codes, minlength=len(labels.values)).tolist(), strict=True))


def samples_per_class(labels: Iterable[tuple[Label, int]], classes: Sequence[str]) -> dict[str, int]:
    """Number of samples of each class; for regression, of samples with another number than zero. labels: with their counts."""
    counts: Counter[int] = Counter()
    for label, count in labels:
        if isinstance(label, int):
            counts[label] += count
        elif label is not None:
            for index, value in enumerate(label):
                counts[index] += count if value else 0
    return {name: counts[index] for index, name in enumerate(classes)}


def fingerprint_lines(items: Items) -> bytes:
    """A line for each sample with all that its split's fingerprint is about: id, label and size."""
    labels = pa.array([str(label) for label in items.labels.values]).take(pa.array(items.labels.codes))
    sizes = pc.if_else(pa.array(items.sizes == UNKNOWN), "None", pa.array(items.sizes).cast(pa.string()))
    lines = pc.binary_join_element_wise(items.ids, labels, sizes, "\t").to_pylist()
    return "".join(f"{line}\n" for line in lines).encode()
