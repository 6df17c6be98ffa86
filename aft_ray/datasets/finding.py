"""Where the samples of a data set are kept until they are written: in this process's memory, or in buckets on a disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets import Listing, list_samples, one_line, plan_of
from aft_ray.datasets.buckets import in_buckets
from aft_ray.datasets.parts import Part, Plan, listing_of, scanned
from aft_ray.datasets.samples import Listed, Samples
from aft_ray.datasets.sources.store_folders import Lister
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.printable import tell
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.files import Directory

BYTES_OF_SAMPLE = 230
"""Memory that a sample takes in a listing."""


def find_samples(config: DatasetConfig, helpers: Helpers | None, place: Callable[[], Directory]) -> Samples:
    """Every sample of the data set, in memory or, where they are work for helpers, in files.

    place: gives the directory for these. Raises InputError if there is nothing to read, a row is wrong, or samples cannot stay
    where they are, as `dataset.copy: false` asks.
    """
    if helpers is None:
        return _in_memory(list_samples(config), config)
    with one_line(config):
        place = cache(place)  # it is this command's alone
        plan = plan_of(config, Lister(helpers, place))
        if plan is not None:  # before content is copied, not after hours of it
            _check_copy(config, are_files=plan.uris is not None)
        reason = _reason(config, plan)
        if plan is not None and reason is None:
            parts = _few(plan, helpers)
            return (
                in_buckets(plan, config, place(), helpers.tasks) if parts is None else Listed(listing_of(plan, parts))
            )
        whole = list_samples(config) if plan is None else listing_of(plan, scanned(plan, helpers))
    samples = _in_memory(whole, config)
    if helpers.of(samples.count):
        tell(
            f"This process keeps all {samples.count:,} samples in its memory, some {BYTES_OF_SAMPLE} bytes each, because"
            f" {reason}. Other samples are kept on disk (docs/scaling.md)."
        )
    return samples


def _in_memory(listing: Listing, config: DatasetConfig) -> Listed:
    _check_copy(config, are_files=listing.uri is not None)
    return Listed(listing)


def _check_copy(config: DatasetConfig, *, are_files: bool) -> None:
    if not config.copy_content and not are_files:
        raise InputError(
            f"dataset.copy is false, but the samples of {config.name or config.path or config.repo} are not files of their"
            " own, which can be read where they lie. Leave dataset.copy out: then 'aft-ray prepare' copies them."
        )


def _reason(config: DatasetConfig, plan: Plan | None) -> str | None:
    """Why samples are kept in memory however many they are; None if they need not be."""
    if plan is None:
        return f"{config.name or config.source} is not listed in parts"
    return plan.why_in_memory


def _few(plan: Plan, helpers: Helpers) -> list[Part] | None:
    """All parts; None once they have as many samples as are work for helpers."""
    parts, count = list[Part](), 0
    for arguments in plan.parts:
        if helpers.of(count) is not None:
            return None
        parts.append(plan.scan(*arguments))
        count += len(parts[-1].items)
    return parts if helpers.of(count) is None else None
