"""The shards of one split: from its rows to Parquet files and a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.base import Listing
from aft_ray.datasets.rows import Rows
from aft_ray.datasets.shard_writing import Part, Writer, Written
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.own_files import delete_own_files, foreign_shards
from aft_ray.store.sample_recipe import DECODING, ORDER, recipe_hash, sample_recipe
from aft_ray.store.shards import ShardDirectory

SHARDS_OF_TASK = 16
"""Shards that one task of a cluster writes: seconds of work, and little to do again when it is lost."""


def source_of(config: DatasetConfig) -> str | None:
    """The data set's name or the kind of its source. Its place is no part of the samples' identity."""
    return config.name or config.source


@dataclass(frozen=True)
class SplitShards:
    """One split on its way to disk, at most `size` of its samples to a shard.

    made: entries of the manifest for the shards that this command has written.
    """

    directory: ShardDirectory
    name: str
    rows: Rows
    config: DatasetConfig
    size: int
    made: dict[int, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        side = self.listing.truncation_side
        return {
            "dataset": source_of(self.config),
            "split": self.name,
            "samples": self.rows.digest(),
            "samples_per_shard": self.size,
            "copy": self.config.copy_content,
            "task": self.listing.task,
            **self.listing.facts,
            **({"truncation_side": side} if side else {}),
            **self._decoding(),
            **({ORDER: "picture"} if self.rows.pairs is not None else {}),
            "recipe": recipe_hash(self.config),
        }

    @property
    def listing(self) -> Listing:
        return self.rows.listing

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
        """Where each shard begins in the rows, then their number."""
        return self.rows.bounds(self.size)

    def missing_shards(self) -> list[int]:
        try:
            missing = self.directory.missing_shards(range(self.num_shards), self.fingerprint)
            self._check_places(missing)
            return missing
        except InputError as error:
            if self._are_of_other_data():
                raise InputError(
                    f"The raw data changed after {self.directory} was made: samples came, went or are others now. Make it"
                    " anew with 'aft-ray prepare --overwrite', or take another workspace."
                ) from error
            if self.directory.manifest() is not None:
                raise InputError(f"The workspace holds samples of another setting: {error}") from error
        if foreign := foreign_shards(self.directory):
            raise InputError(
                f"{self.directory} holds {', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}, damaged or not"
                " written by aft-ray. Move that away and run again."
            )
        delete_own_files(self.directory)  # left by a command that never finished, of samples no longer asked for
        return list(range(self.num_shards))

    def _are_of_other_data(self) -> bool:
        """Whether the same recipe made these samples from other raw data."""
        manifest = self.directory.manifest()
        on_disk, now = manifest["fingerprint"] if manifest else {}, self.fingerprint
        return on_disk.get("recipe") == now["recipe"] and on_disk["samples"] != now["samples"]

    def _check_places(self, missing: Sequence[int]) -> None:
        """Raises InputError if pictures that were not copied lie elsewhere now."""
        shard = next((shard for shard in range(self.num_shards) if shard not in missing), None)
        if self.config.copy_content or self.listing.uri is None or shard is None:
            return
        listing, indices = self._part(shard)
        assert listing.uri is not None, "its rows are of one listing"
        places = {listing.items[index].sample_id: listing.uri(index) for index in indices.tolist()}
        for row in self.directory.read_shard(shard, ["sample_id", "image_uri"]).slice(0, 1).to_pylist():
            if row["image_uri"] != places[row["sample_id"]]:
                raise InputError(
                    f"with dataset.copy false, pictures are read from where they lay, {row['image_uri']}; this one is now"
                    f" {places[row['sample_id']]}. Run 'aft-ray prepare --overwrite'"
                )

    def write(self, shards: Sequence[int], tasks: Tasks | None = None) -> Iterator[list[dict[str, str]]]:
        """Writes each shard, in `tasks` if there are any, and yields its quarantined samples, with their reasons."""
        writer = Writer(self.directory, self.config, self.stamp)
        written = writer.written(shards, self._part) if tasks is None else self._written_in(tasks, writer, shards)
        for shard, entry, quarantined in written:
            if entry is not None:
                self.made[shard] = entry
            yield quarantined

    def _written_in(self, tasks: Tasks, writer: Writer, shards: Sequence[int]) -> Iterator[Written]:
        spans = [(shard, self.bounds[shard], self.bounds[shard + 1]) for shard in shards]
        groups = [spans[start : start + SHARDS_OF_TASK] for start in range(0, len(spans), SHARDS_OF_TASK)]
        for written in self.rows.written(writer, tasks, groups):
            yield from written

    def _part(self, shard: int) -> Part:
        return self.rows.part(self.bounds[shard], self.bounds[shard + 1])

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
        listing, (index, *_) = self.rows.part(0, 1)
        first = listing.items[int(index)].sample_id
        example = f" ({first}: {reasons[first]})" if first in reasons else ""
        return (
            f"Split {self.name} would be empty: all its {len(self.rows)} samples are quarantined{example}."
            " Mend or remove them and run 'aft-ray prepare --overwrite'."
        )

    def finish(self) -> dict[str, Any]:
        """The split's manifest, written if it is not there yet or a shard was made again."""
        manifest = self.directory.manifest()
        if manifest is not None and not self.made:
            return manifest
        *counts, num_unlabelled = self._kept().tolist()
        return self.directory.write_manifest(
            self.num_shards,
            self.stamp,
            entries=self.entries,
            modality=self.listing.modality,
            task=self.listing.task,
            classes=list(self.listing.classes),
            samples_per_class=dict(zip(self.listing.classes, counts, strict=True)),
            num_unlabelled=num_unlabelled,
            truncation_side=self.listing.truncation_side,
            recipe=sample_recipe(self.config),
        )

    def _kept(self) -> np.ndarray:
        """The `tally` of the samples that are not quarantined."""
        return self.rows.tally_without(
            [sample["sample_id"] for entry in self.entries.values() for sample in entry.get("quarantined", ())]
        )
