"""The manifest that makes a directory of shards complete, and the keys that every manifest must have.

It lists the shards' checksums, and its digest proves it. Manifests of before have no digest and are checked for form alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.json_files import damaged, sealed
from aft_ray.store.files import Directory

MANIFEST = "manifest.json"
WAY_OUT = "Delete this file and run the command that writes it again: whole shards are kept."
OPEN = ConfigDict(strict=True, extra="allow")

Count = Annotated[int, Field(ge=0)]
Hash = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


@with_config(OPEN)
class ShardEntry(TypedDict):
    """What a manifest says of a shard. content: of samples, the digest of all that a teacher sees. num_pictures: of pairs, where
    some share one."""

    file: str
    num_bytes: Count
    sha256: Hash
    num_samples: Count
    content: NotRequired[Hash]
    num_pictures: NotRequired[Count]


@with_config(OPEN)
class QuarantinedSample(TypedDict):
    sample_id: str
    reason: str


@with_config(OPEN)
class Manifest(TypedDict):
    """num_samples: in all shards. quarantined: samples that cannot be used. fingerprint: the settings that made the shards."""

    num_samples: Count
    quarantined: list[QuarantinedSample]
    fingerprint: dict[str, Any]
    shards: list[ShardEntry]
    modality: NotRequired[str]
    task: NotRequired[Literal["classification", "multilabel", "regression"]]
    classes: NotRequired[list[str]]
    samples_per_class: NotRequired[dict[str, Count]]
    num_unlabelled: NotRequired[Count]
    feature_dim: NotRequired[Annotated[int, Field(ge=1)]]


def manifest_bytes(head: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> bytes:
    """The file's content. `head` has all but the shards, which get a line each."""
    lines = ",\n  ".join(map(json.dumps, shards))  # millions of shards would be indented in minutes and gigabytes
    return sealed(f'{json.dumps(head, indent=1)[:-2]},\n "shards": [\n  {lines}\n ]\n}}')


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
    faults += _form_faults(manifest, shard_name)
    own = directory.path.rpartition("/")[2]
    if (split := manifest["fingerprint"].get("split", own)) != own:
        faults.append(f"it is of the split {split!r}")
    if faults:
        raise damaged(f"{directory}/{MANIFEST}", faults, WAY_OUT)
    return manifest


def _form_faults(manifest: Mapping[str, Any], shard_name: Callable[[int], str]) -> list[str]:
    faults = []
    for number, entry in enumerate(manifest["shards"]):
        if entry["file"] != shard_name(number):
            faults.append(f"shards.{number}.file is {entry['file']!r}, not '{shard_name(number)}'")
            break  # all after it are moved too
    total = sum(entry["num_samples"] for entry in manifest["shards"])
    if manifest["num_samples"] != total:
        faults.append(f"num_samples is {manifest['num_samples']}, its shards hold {total}")
    classes = manifest.get("classes", [])
    if len(set(classes)) < len(classes):
        faults.append("two of its classes have the same name")
    if list(manifest.get("samples_per_class", classes)) != classes:
        faults.append("samples_per_class has other classes than classes")
    return faults
