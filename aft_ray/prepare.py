"""prepare: any source -> aligned shards of samples, with splits that depend on the sample ids alone."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from typing import Any

import pyarrow as pa

from aft_ray.config import DatasetConfig, InputError, Recipe
from aft_ray.datasets import Listing, list_samples
from aft_ray.schema import SPLITS, samples_schema
from aft_ray.store import Workspace

logger = logging.getLogger(__name__)


def prepare(recipe: Recipe, *, overwrite: bool = False) -> dict[str, dict[str, Any]]:
    """Writes `samples/<split>/` and returns the manifest of each split. Splits that are complete are left alone.

    Raises InputError if the workspace holds the samples of another data set, or a split would be empty.
    """
    workspace = Workspace.at(recipe.workspace)
    listing = list_samples(recipe.dataset)
    chosen = choose_splits(listing, recipe.dataset)
    empty = [split for split in SPLITS if not chosen[split]]
    if empty:
        raise InputError(
            f"No samples fall into split {', '.join(empty)}: {len(listing.items)} samples are too few for"
            f" validation_fraction {recipe.dataset.validation_fraction} and test_fraction"
            f" {recipe.dataset.test_fraction}."
        )
    if overwrite:
        (workspace / "samples").delete()
    return {split: _write_split(workspace, split, listing, chosen[split], recipe.dataset) for split in SPLITS}


def choose_splits(listing: Listing, config: DatasetConfig) -> dict[str, list[int]]:
    """Indices into `listing.items` per split, in the order of their hash: every shard is a random sample.

    The hash of a sample's id places it, so a sample stays in its split when others come or go.
    """
    order = sorted(range(len(listing.items)), key=lambda index: _unit_hash("order", listing.items[index].sample_id))
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for index in order[: config.max_samples]:
        place = _unit_hash("split", listing.items[index].sample_id)
        if place < config.test_fraction:
            splits["test"].append(index)
        elif place < config.test_fraction + config.validation_fraction:
            splits["validation"].append(index)
        else:
            splits["train"].append(index)
    return splits


def _unit_hash(salt: str, sample_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    digest = hashlib.sha256(f"{salt}:{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _write_split(
    workspace: Workspace, split: str, listing: Listing, indices: list[int], config: DatasetConfig
) -> dict[str, Any]:
    directory = workspace.samples(split)
    ids = "\n".join(listing.items[index].sample_id for index in indices)
    fingerprint = {
        "dataset": config.name or f"{config.source}:{config.path}",
        "split": split,
        "sample_ids": hashlib.sha256(ids.encode()).hexdigest()[:16],
        "samples_per_shard": config.samples_per_shard,
    }
    ranges = [
        indices[start : start + config.samples_per_shard] for start in range(0, len(indices), config.samples_per_shard)
    ]
    try:
        missing = directory.missing_shards(len(ranges), fingerprint)
    except InputError as error:
        raise InputError(
            f"The workspace holds samples of another setting: {error} Or run 'aft-ray prepare' with --overwrite."
        ) from error
    manifest = directory.manifest()
    if manifest is not None and not missing:
        return manifest
    for shard in missing:
        directory.write_shard(shard, _samples_table(listing, ranges[shard]), fingerprint)
    counts = Counter(listing.classes[listing.items[index].label] for index in indices)
    logger.info("prepared %s: %d samples in %d shards", split, len(indices), len(ranges))
    return directory.write_manifest(
        len(ranges),
        fingerprint,
        modality=listing.modality,
        classes=list(listing.classes),
        samples_per_class={name: counts[name] for name in listing.classes},
    )


def _samples_table(listing: Listing, indices: list[int]) -> pa.Table:
    schema = samples_schema(listing.modality)
    columns = [
        [listing.items[index].sample_id for index in indices],
        [listing.items[index].label for index in indices],
        [listing.read(index) for index in indices],
    ]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
