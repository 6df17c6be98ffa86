"""Checks across the splits of one data set: the same classes, and as many labels as each manifest counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from aft_ray.recipe.errors import InputError, faults_of
from aft_ray.recipe.json_files import DIGEST, damaged
from aft_ray.store.manifest import MANIFEST, WAY_OUT
from aft_ray.store.schema import SPLITS
from aft_ray.store.shards import ShardDirectory
from aft_ray.store.side_by_side import Store, open_store
from aft_ray.store.workspace import Workspace

SHARED = ("classes", "task", "modality")


def split_faults(manifests: Mapping[str, Mapping[str, Any]], workspace: object) -> list[str]:
    """One line for each split whose classes, task or modality are not the first one's."""
    first, *others = manifests
    return [
        f"{workspace}: the splits '{first}' and '{split}' differ in their {key}. One of the manifests was changed: restore it"
        " from a copy, or make new samples with 'aft-ray prepare --overwrite'."
        for split in others
        for key in SHARED
        if manifests[split].get(key) != manifests[first].get(key)
    ]


def content_faults(workspace: Workspace) -> list[str]:
    """Faults of samples and features whose checksums are right: reads ids, labels and features of every shard."""
    there = [split for split in SPLITS if workspace.samples(split).manifest()]
    found: dict[str, Mapping[str, Any]] = {}
    faults: list[str] = []
    for split in there:
        store = open_store(workspace, split)
        found[split] = store.manifest
        faults += faults_of(partial(_check_labels, store))
        for teacher in (workspace / "features").folders():
            if workspace.features(teacher, split).manifest():
                faults += faults_of(partial(_read, workspace, split, teacher))
    return faults + (split_faults(found, workspace) if found else [])


def has_digest(directory: ShardDirectory) -> bool:
    """Whether the manifest proves its own content, such as the names of classes."""
    return DIGEST in directory.read(MANIFEST)


def _check_labels(store: Store) -> None:
    """Raises InputError if a class has more samples than its manifest counts, or too few are there in all."""
    counts: Counter[int] = Counter()
    for index in range(store.num_shards):
        labels = store.read_shard(index, columns=())["label"]
        if labels.ndim == 1:
            counts.update(labels.tolist())
    declared = store.manifest.get("samples_per_class")
    if not declared or store.manifest.get("task", "classification") != "classification":
        return
    missing = {name: count - counts[k] for k, (name, count) in enumerate(declared.items())}
    put_aside = len(store.manifest["quarantined"])
    if min(missing.values()) < 0 or sum(missing.values()) > put_aside:
        name = max(missing, key=lambda name: abs(missing[name]))
        fault = f"class {name!r} has {declared[name]} samples there and {declared[name] - missing[name]} in the shards"
        raise damaged(f"{store.samples}/{MANIFEST}", [fault], WAY_OUT)


def _read(workspace: Workspace, split: str, teacher: str) -> None:
    """Raises InputError if a teacher's shard does not hold features of the same samples in the same order."""
    store = open_store(workspace, split, [teacher])
    if faults := faults_of(*(partial(store.read_shard, index, ()) for index in range(store.num_shards))):
        raise InputError(faults)
