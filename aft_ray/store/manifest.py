"""The manifest that makes a directory of shards complete, and the keys that every manifest must have.

It lists the shards' checksums, and its digest proves it. Manifests of before have no digest and are checked for form alone. Of
many shards it lists the parts that do (`manifest_parts`), which whoever reads `manifest["shards"]` does not notice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.json_files import damaged, sealed
from aft_ray.recipe.task import Task
from aft_ray.store import manifest_parts
from aft_ray.store.files import Directory
from aft_ray.store.manifest_parts import (
    OPEN,
    Count,
    PartedShards,
    PartEntry,
    ShardEntry,
    delete_other_parts,
    shards_text,
    write_parts,
)

MANIFEST = "manifest.json"
WAY_OUT = "Delete this file and run the command that writes it again: whole shards are kept."


@with_config(OPEN)
class QuarantinedSample(TypedDict):
    sample_id: str
    reason: str


@with_config(OPEN)
class Manifest(TypedDict):
    """num_samples: in all shards. quarantined: samples that cannot be used. fingerprint: the settings that made the shards.
    parts: in place of `shards` where they are many."""

    num_samples: Count
    quarantined: list[QuarantinedSample]
    fingerprint: dict[str, Any]
    shards: NotRequired[list[ShardEntry]]
    parts: NotRequired[list[PartEntry]]
    modality: NotRequired[str]
    task: NotRequired[Task]
    classes: NotRequired[list[str]]
    samples_per_class: NotRequired[dict[str, Count]]
    num_unlabelled: NotRequired[Count]
    feature_dim: NotRequired[Annotated[int, Field(ge=1)]]


def num_labelled(manifest: Mapping[str, Any]) -> int:
    """Samples of a split with a label; manifests of before do not count those without one, since all had one."""
    return int(manifest["num_samples"] - manifest.get("num_unlabelled", 0))


def write_manifest(directory: Directory, head: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> None:
    """`head` has all but the shards, which get a line each."""
    if len(shards) > manifest_parts.PART_SHARDS:
        parts = write_parts(directory, shards)
        directory.write_json(MANIFEST, {**head, "parts": parts})
    else:
        parts = []
        directory.write(MANIFEST, sealed(f"{json.dumps(head, indent=1)[:-2]},\n {shards_text(shards)}"))
    delete_other_parts(directory, parts)


def read_manifest(
    directory: Directory, shard_name: Callable[[int], str], facts: Sequence[str] = ()
) -> dict[str, Any] | None:
    """The manifest, None if there is none.

    shard_name: the name of each shard's file, by number. facts: keys that it must have besides those in Manifest.
    Raises InputError, one line per fault.
    """
    if not directory.has(MANIFEST):
        return None
    manifest: dict[str, Any] = directory.read_json(MANIFEST, Manifest, WAY_OUT)
    faults = [f"{key}: Field required" for key in facts if key not in manifest]
    parts = manifest.pop("parts", None)
    if parts:
        check = partial(_name_faults, shard_name)
        manifest["shards"] = PartedShards(directory, tuple(parts), check)
    if "shards" in manifest:
        faults += _form_faults(manifest, shard_name, parts)
    else:
        faults.append("shards: Field required")
    own = directory.path.rpartition("/")[2]
    if (split := manifest["fingerprint"].get("split", own)) != own:
        faults.append(f"it is of the split {split!r}")
    if faults:
        raise damaged(f"{directory}/{MANIFEST}", faults, WAY_OUT)
    return manifest


def _form_faults(
    manifest: Mapping[str, Any], shard_name: Callable[[int], str], parts: Sequence[PartEntry] | None
) -> list[str]:
    faults = _name_faults(shard_name, manifest["shards"], 0) if not parts else []
    total = sum(entry["num_samples"] for entry in parts or manifest["shards"])
    if manifest["num_samples"] != total:
        faults.append(f"num_samples is {manifest['num_samples']}, its shards hold {total}")
    classes = manifest.get("classes", [])
    if len(set(classes)) < len(classes):
        faults.append("two of its classes have the same name")
    if list(manifest.get("samples_per_class", classes)) != classes:
        faults.append("samples_per_class has other classes than classes")
    return faults


def _name_faults(shard_name: Callable[[int], str], shards: Sequence[Mapping[str, Any]], start: int) -> list[str]:
    """start: number of the first of these shards."""
    for number, entry in enumerate(shards, start):
        if entry["file"] != shard_name(number):
            return [
                f"shards.{number}.file is {entry['file']!r}, not '{shard_name(number)}'"
            ]  # all after it are moved too
    return []
