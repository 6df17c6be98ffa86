"""Which files of a shard directory aft_ray wrote. Only these are ever deleted; any other is somebody's data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.json_files import json_or_none
from aft_ray.store.files import Directory
from aft_ray.store.kept_entries import NOTE
from aft_ray.store.manifest import MANIFEST
from aft_ray.store.manifest_parts import PART
from aft_ray.store.parquet import FINGERPRINT_KEY
from aft_ray.store.prefetch import prefetched
from aft_ray.store.shards import ShardDirectory

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
        return {"shards", "digest"} == json_object(directory, name).keys()
    if not SHARD.fullmatch(name):
        return any(form.fullmatch(name) for form in (UNFINISHED, NOTE))
    return FINGERPRINT_KEY in parquet_metadata(directory, name)


def _is_own_manifest(directory: ShardDirectory) -> bool:
    keys = json_object(directory, MANIFEST).keys()
    return {"fingerprint", "quarantined"} <= keys and bool({"shards", "parts"} & keys)


def parquet_metadata(place: Directory, name: str) -> Mapping[bytes, bytes]:
    """The metadata of a Parquet file of unknown origin; empty if the file is damaged or not Parquet."""
    try:
        return pq.read_schema(f"{place}/{name}", filesystem=place.filesystem).metadata or {}
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and not place.is_local:
            place.read(name)  # raises if the store failed, not the content
        return {}


def json_object(place: Directory, name: str) -> dict[str, Any]:
    """The object in a JSON file of unknown origin; empty if the file is damaged or holds no object."""
    try:
        found = json_or_none(place.read(name))
    except ObjectStoreError:
        raise
    except (OSError, InputError):
        return {}
    return found if isinstance(found, dict) else {}
