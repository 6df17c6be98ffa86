"""prepare: any source -> aligned shards of samples, with splits that depend on the sample ids alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from aft_ray.cluster.lease import lease
from aft_ray.cluster.progress import Progress
from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets import Listing
from aft_ray.datasets.base import raise_faults
from aft_ray.datasets.buckets import working_place
from aft_ray.datasets.data_check import data_check
from aft_ray.datasets.finding import find_samples
from aft_ray.datasets.overlap import check_apart
from aft_ray.datasets.replacement import check_folders, clean, replacing
from aft_ray.datasets.rows import Rows
from aft_ray.datasets.sample_shards import SplitShards, source_of
from aft_ray.datasets.samples import Samples
from aft_ray.datasets.shard_size import samples_per_shard
from aft_ray.datasets.shard_writing import can_travel
from aft_ray.datasets.text_check import text_lines
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.own_class import own_faults
from aft_ray.recipe.printable import tell
from aft_ray.recipe.sections import DatasetConfig, StudentConfig
from aft_ray.store.files import Directory
from aft_ray.store.quarantine import check_quarantined
from aft_ray.store.sample_recipe import as_made, check_sample_recipe
from aft_ray.store.schema import SPLITS
from aft_ray.store.shards import ShardDirectory, without_place
from aft_ray.store.workspace import Workspace, split_directory


def prepare(recipe: Recipe, *, overwrite: bool = False, helpers: Helpers | None = None) -> dict[str, dict[str, Any]]:
    """Writes `samples/<split>/` and returns the manifest of each split. Splits that are complete are left alone.

    helpers: do a part of the work where there are many samples, as `dataset.distributed` says. The result is the same.
    With `overwrite`, new samples replace the old ones when all are there; until then the old ones are valid.
    A sample that cannot be read, has no text, or does not begin as a picture does is quarantined and named in the manifest.
    Raises InputError if the raw data lies where the samples do, the workspace holds the samples of another data set, a
    split would be empty, or more than `dataset.max_bad_samples` would be quarantined.
    """
    with ExitStack() as stack:
        return _prepared(recipe, overwrite, helpers, stack)


def _prepared(recipe: Recipe, overwrite: bool, helpers: Helpers | None, stack: ExitStack) -> dict[str, dict[str, Any]]:
    """stack: holds the directory of samples that have no room in memory."""
    config, workspace = recipe.dataset, Workspace.at(recipe.workspace)
    check_folders(workspace)
    helpers = _wanted(helpers, config)
    there = {} if overwrite else _manifests(workspace)
    for manifest in there.values():
        check_sample_recipe(config, manifest, workspace)
        config = as_made(config, manifest)

    def working() -> Directory:
        check_apart(config, workspace)  # before the first file is written, not after hours of listing
        return stack.enter_context(working_place(workspace))

    try:
        samples = find_samples(config, helpers, working)
    except InputError as error:
        if len(there) < len(SPLITS) or not _need_no_source(config, there):
            raise
        tell(
            f"The samples in {workspace} are whole, and kept. They were not compared with the raw data: {error.faults[0]}"
        )
        return there
    listing = samples.listing
    check_apart(config, workspace, samples.files())
    tell_left_out(listing)
    if "image" in listing.modality and config.background != recipe.dataset.background:
        tell(
            f"The samples in {workspace} were made before dataset.background: transparent parts show the colours that they"
            f" hide. 'aft-ray prepare --overwrite' makes samples on {recipe.dataset.background}."
        )
    chosen = samples.choose(config, there)
    empty = [split for split in SPLITS if not len(chosen[split])]
    if empty:
        raise InputError(
            f"No samples fall into split {', '.join(empty)}: {samples.count} samples are too few for"
            f" validation_fraction {config.validation_fraction} and test_fraction {config.test_fraction}."
        )
    with lease(workspace, "samples"), own_faults(config.source or "", "dataset.source"):
        if overwrite:
            with replacing(workspace) as place:
                return _prepare(samples, chosen, config, recipe.student, place, helpers)
        clean(workspace)
        return _prepare(samples, chosen, config, recipe.student, workspace.samples_place(), helpers)


def _manifests(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The manifest of each split that is complete."""
    found = {split: workspace.samples(split).manifest() for split in SPLITS}
    return {split: manifest for split, manifest in found.items() if manifest is not None}


def _need_no_source(config: DatasetConfig, manifests: Mapping[str, dict[str, Any]]) -> bool:
    """Whether whole samples are of this data set and hold copies of its pictures."""
    made_from = without_place(manifests["train"]["fingerprint"])
    return made_from["dataset"] == source_of(config) and config.copy_content and made_from.get("copy", True)


def _wanted(helpers: Helpers | None, config: DatasetConfig) -> Helpers | None:
    if helpers is None or config.distributed == "never":
        return None
    return replace(helpers, least=0) if config.distributed == "always" else helpers


def _prepare(
    samples: Samples,
    chosen: Mapping[str, Rows],
    config: DatasetConfig,
    student: StudentConfig,
    place: Directory,
    helpers: Helpers | None,
) -> dict[str, dict[str, Any]]:
    directories = {split: split_directory(place, split) for split in SPLITS}
    size = (
        config.samples_per_shard
        or _size_on_disk(directories[SPLITS[-1]])
        or samples_per_shard([chosen[split] for split in SPLITS])
    )
    splits = [SplitShards(directories[split], split, chosen[split], config, size) for split in SPLITS]
    missing = [split.missing_shards() for split in splits]
    tasks = helpers.of(size * sum(map(len, missing))) if helpers and can_travel(samples.listing) else None
    quarantined: list[dict[str, str]] = []
    with Progress("prepare", sum(map(len, missing)), "shards") as progress:
        for split, shards in zip(splits, missing, strict=True):
            for found in split.write(shards, tasks):
                quarantined += found
                progress.advance(1)
    samples.check_unchanged()
    check_quarantined(quarantined, config.max_bad_samples)
    reasons = {sample["sample_id"]: sample["reason"] for sample in quarantined}
    raise_faults(split.told_empty(reasons) for split in splits if split.is_empty())
    manifests = {split.name: split.finish() for split in splits}
    if any(missing):
        cut = text_lines(student, directories["train"], manifests["train"])
        for line in (*data_check(directories, manifests), *cut):
            tell(f"data check: {line}")
    return manifests


def tell_left_out(listing: Listing) -> None:
    """Says in one line which files, members and rows beside the samples were not read; then the source's own notes."""
    if listing.left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(listing.left_out.items()))
        tell(f"prepare left out, as no samples: {kinds}.")
    for note in listing.notes:
        tell(f"data check: {note}")


def _size_on_disk(directory: ShardDirectory) -> int | None:
    """Samples of a shard in a split that is prepared: a change since then shows in its fingerprint."""
    manifest = directory.manifest()
    return manifest["fingerprint"]["samples_per_shard"] if manifest else None
