"""Which files of a shard directory aft_ray wrote. Only these are ever deleted; any other is somebody's data."""

from __future__ import annotations

import re

import pyarrow.fs as pafs

from aft_ray.store.kept_entries import NOTE, is_own_note
from aft_ray.store.manifest import MANIFEST
from aft_ray.store.manifest_parts import PART, is_own_part
from aft_ray.store.parquet import FINGERPRINT_KEY
from aft_ray.store.prefetch import prefetched
from aft_ray.store.shards import ShardDirectory
from aft_ray.store.unknown_files import json_object, parquet_metadata

SHARD = re.compile(r"part-\d{5,}\.parquet")
UNFINISHED = re.compile(rf"\.(part-\d{{5,}}\.parquet|manifest\.json|{PART.pattern})\.[0-9a-f]{{8}}\.tmp")
THREADS = 8


def own_files(directory: ShardDirectory) -> list[str]:
    """Names of files with a name, and with content, that only aft_ray writes; the manifest is the first."""
    names = sorted(
        (info.base_name for info in directory.infos() if info.type == pafs.FileType.File), key=_manifest_first
    )
    own = prefetched(lambda name: _is_own(directory, name), names, threads=THREADS)
    return [name for name, is_own in zip(names, own, strict=True) if is_own]


def foreign_shards(directory: ShardDirectory) -> list[str]:
    """Names that shards have, of files that are none of ours."""
    own = set(own_files(directory))
    return [name for name in directory.names() if SHARD.fullmatch(name) and name not in own]


def delete_own_files(directory: ShardDirectory) -> None:
    """Deletes our files. A kill leaves no manifest that lists deleted shards."""
    for name in own_files(directory):
        directory.delete_file(name)


def _manifest_first(name: str) -> tuple[bool, str]:
    return name != MANIFEST, name


def _is_own(directory: ShardDirectory, name: str) -> bool:
    if name == MANIFEST:
        return _is_own_manifest(directory)
    if PART.fullmatch(name):
        return is_own_part(directory, name)
    if NOTE.fullmatch(name):
        return is_own_note(directory, name)
    if not SHARD.fullmatch(name):
        return UNFINISHED.fullmatch(name) is not None
    return FINGERPRINT_KEY in parquet_metadata(directory, name)


def _is_own_manifest(directory: ShardDirectory) -> bool:
    keys = json_object(directory, MANIFEST).keys()
    return {"fingerprint", "quarantined"} <= keys and bool({"shards", "parts"} & keys)
