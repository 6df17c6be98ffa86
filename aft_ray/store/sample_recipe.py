"""The keys of a recipe's `dataset` that the samples of a workspace were made with, and how a recipe differs from them.

They are in the samples' manifest under `recipe`. The place of the raw data is not among them: it may be moved or gone.
Samples of before lack keys that came later, and keep the meaning that they had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import Workspace

FACT = "recipe"
PLACES = {"path", "image_root"}
STORAGE = {"samples_per_shard", "copy", "copy_content", "max_bad_samples", "distributed"}
"""Keys that change how samples are stored or made, or how many may be quarantined."""
BEFORE = {"background": None, "stratify": False, "max_pixels": None, "split_seed": 0}
"""Keys that came later, as samples without them were made."""
DECODING = ("background", "max_pixels")
"""Keys that change how pictures are decoded: they stand in the fingerprint of samples that have pictures."""
ORDER = "order"
"""Key of the fingerprint of samples whose pairs of one picture lie side by side; in older samples they lie anywhere."""
SHOWN = 60
"""Characters of a value in a message."""


def sample_recipe(config: DatasetConfig) -> dict[str, Any]:
    """The keys that decide which samples there are, their labels and their content, as JSON values by dotted key."""
    found = config.model_dump(mode="json", exclude=PLACES | STORAGE)
    columns = found.pop("columns")
    found |= {f"columns.{key}": value for key, value in columns.items() if key not in PLACES}
    if config.source is not None:
        found["task"] = config.task or "classification"
    return found


def recipe_hash(config: DatasetConfig) -> str:
    """A hash of the keys that choose samples, labels and texts; later keys count only where they change these."""
    found = sample_recipe(config).items()
    chosen = {key: value for key, value in found if key not in DECODING and (key, value) not in BEFORE.items()}
    return fingerprint(chosen)


def is_of_before(manifest: Mapping[str, Any]) -> bool:
    """Whether samples were made when pictures showed the colours that transparent parts hide, and samples without a label were
    held out like all others."""
    return "background" not in manifest.get(FACT, {})


def has_pairs_apart(manifest: Mapping[str, Any]) -> bool:
    """Whether samples were made when pairs of one picture lay anywhere, or when none had a picture in common."""
    return ORDER not in manifest["fingerprint"]


def as_made(config: DatasetConfig, manifest: Mapping[str, Any]) -> DatasetConfig:
    """The recipe that makes further samples in the way in which the samples of the manifest were made."""
    return config.model_copy(update={"background": None}) if is_of_before(manifest) else config


def recipe_faults(config: DatasetConfig, manifest: Mapping[str, Any], workspace: object) -> list[str]:
    """One line that names the keys in which the recipe differs from its samples; none where the manifest is of before."""
    now, on_disk = sample_recipe(as_made(config, manifest)), manifest.get(FACT, {})
    if on_disk:
        on_disk = {**BEFORE, **on_disk}
    differing = [
        f"dataset.{key} is {_short(value)} on disk, {_short(now[key])} in this run"
        for key, value in on_disk.items()
        if key in now and now[key] != value
    ]
    if not differing:
        return []
    keys = "the key" if len(differing) == 1 else "the keys"
    return [
        f"The workspace {workspace} holds samples of another setting: {'; '.join(differing)}. Set {keys} back, or make new"
        " samples with 'aft-ray prepare --overwrite'."
    ]


def check_sample_recipe(config: DatasetConfig, manifest: Mapping[str, Any], workspace: object) -> None:
    """Raises InputError if the samples of this manifest were made with other settings than the recipe's."""
    if faults := recipe_faults(config, manifest, workspace):
        raise InputError(faults)


def whole_samples(workspace: Workspace) -> dict[str, dict[str, Any]] | None:
    """The manifest of each split; None if a split is missing, unfinished or damaged."""
    try:
        found = {split: workspace.samples(split).manifest() for split in SPLITS}
    except InputError:
        return None
    manifests = {split: manifest for split, manifest in found.items() if manifest is not None}
    return manifests if len(manifests) == len(SPLITS) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
