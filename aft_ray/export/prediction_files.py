"""Where `predict` writes: Parquet parts, and predictions.json, which names the parts that are valid.

New parts are made in a hidden directory, moved beside the old ones under names of their own, and become valid with one
write of predictions.json; only then are the old ones deleted. So a kill leaves the old predictions or the new ones, whole,
on a disk and in an object store alike. Every part carries a mark: a file without it is not ours and is never touched.
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from aft_ray.cluster.lease import lease
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import STALE_AFTER_S, TEMPORARY, Directory
from aft_ray.store.prefetch import prefetched
from aft_ray.store.unknown_files import json_object, parquet_metadata
from aft_ray.store.workspace import Workspace

SUMMARY = "predictions.json"
MADE_BY = "aft-ray predict"
MARK = b"aft_ray.predictions"
"""Key in a part's metadata."""
PART = re.compile(r"part-.*\.parquet")
STAGING = re.compile(r"\.predicting-[0-9a-f]{8}")
THREADS = 8
NAMED = 3
"""Foreign files that a refusal names."""


@dataclass(frozen=True)
class Staged:
    """Parts of new predictions, not valid yet. token: a part of their names that no other call has."""

    place: Directory
    token: str

    @property
    def staging(self) -> Directory:
        return self.place / f".predicting-{self.token}"

    def write(self, number: int, table: pa.Table) -> str:
        """Writes a part and returns its hash; called again for the same number, it replaces the same file."""
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), MARK: MADE_BY.encode()}), sink)
        content = sink.getvalue()
        self.staging.write(f"{number}.parquet", content)
        return hashlib.sha256(content).hexdigest()

    def mark_begun(self) -> None:
        """Leaves a mark that goes when the call ends, however it ends, unless this process dies."""
        self.staging.write(f".begun.{self.token}.tmp", b"")

    @property
    def follows_a_death(self) -> bool:
        """Whether another call with the same output has not ended: its process died within the hour, or is at work."""
        return any(STAGING.fullmatch(name) and name not in self.staging.path for name in self.place.names())

    def publish(self, hashes: Mapping[int, str], summary: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the parts valid and deletes the older ones. Returns the content of predictions.json.

        hashes: of each part, from `write`.
        """
        filesystem, old = self.place.filesystem, list(_own_parts(self.place))
        files = [f"part-{number:05d}-{self.token}.parquet" for number in sorted(hashes)]
        for number, name in enumerate(files):
            filesystem.move(f"{self.staging}/{number}.parquet", f"{self.place}/{name}")
        sha256 = {name: hashes[number] for number, name in enumerate(files)}
        written = {"made_by": MADE_BY, **summary, "files": files, "sha256": sha256}
        self.place.write_json(SUMMARY, written)
        for name in old:
            filesystem.delete_file(f"{self.place}/{name}")
        return written


def output_directory(workspace: Workspace, run: str, output: str | None, source: str) -> Directory:
    """The directory for predictions of the samples at `source`: `output`, or the workspace's `predictions/<run>`.

    Raises InputError if something there is not ours to replace, or source and output overlap.
    """
    place = Workspace.at(output) if output else workspace / "predictions" / run
    given = Workspace.at(source)
    faults = []
    if _contains(place, given) or _contains(given, place):
        faults.append(f"The output {place} and the input {given} must lie apart. Name another directory with --output.")
    if _contains(workspace, place) and not _contains(workspace / "predictions", place):
        faults.append(
            f"The output {place} is a part of the workspace that is not for predictions."
            f" Name {workspace}/predictions/NAME or a directory elsewhere with --output."
        )
    if place.filesystem.get_file_info(place.path).type == pafs.FileType.File:
        faults.append(f"The output {place} is a file. Name a directory with --output.")
    elif foreign := _foreign(place):
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        faults.append(
            f"{place} holds {', '.join(foreign[:NAMED])}{more}, which this version of 'aft-ray predict' did not write."
            " Move that away, or name another directory with --output."
        )
    if faults:
        raise InputError([f"{fault} Nothing was changed." for fault in faults])
    return Directory(place.filesystem, place.path)


@contextmanager
def staged(workspace: Workspace, place: Directory) -> Iterator[Staged]:
    """New predictions for `place`; parts that are not published when the context ends are deleted.

    Of two commands that write to the same place in the workspace, the second waits. Outside, the last to end wins: there is
    no lease, since the workspace may be read-only.
    """
    name = PurePosixPath(place.path).name
    with lease(workspace, f"predictions/{name}") if _contains(workspace, place) else nullcontext():
        _delete_left_overs(place)
        new = Staged(place, uuid.uuid4().hex[:8])
        try:
            yield new
        finally:
            new.staging.delete()


def _contains(outer: Directory, inner: Directory) -> bool:
    """Whether `inner` is `outer` or lies below it."""
    same_kind = outer.filesystem.type_name == inner.filesystem.type_name
    return same_kind and PurePosixPath(inner.path).is_relative_to(outer.path)


def _foreign(place: Directory) -> list[str]:
    """Files with names like ours that this command did not write."""
    names = place.names()
    parts = {name for name in names if PART.fullmatch(name)} - set(_own_parts(place))
    return sorted(parts | ({SUMMARY} if SUMMARY in names and not is_own_summary(place) else set()))


def _own_parts(place: Directory) -> Iterator[str]:
    files = [info.base_name for info in place.infos() if info.type == pafs.FileType.File]  # a pipe would be waited for
    names = sorted(name for name in files if PART.fullmatch(name))
    for name, own in zip(
        names, prefetched(lambda name: _is_own_part(place, name), names, threads=THREADS), strict=True
    ):
        if own:
            yield name


def _is_own_part(place: Directory, name: str) -> bool:
    return MARK in parquet_metadata(place, name)


def is_own_summary(place: Directory) -> bool:
    return json_object(place, SUMMARY).get("made_by") == MADE_BY


def _delete_left_overs(place: Directory) -> None:
    """Deletes the unpublished parts of calls that were killed an hour ago or earlier, and nothing beside them."""
    for name in filter(STAGING.fullmatch, place.names()):
        folder = place / name
        infos = folder.infos()
        newest = max((info.mtime_ns or 0 for info in infos), default=0)
        if time.time() - newest / 1e9 > STALE_AFTER_S and all(_is_left_over(folder, info) for info in infos):
            folder.delete()


def _is_left_over(folder: Directory, info: pafs.FileInfo) -> bool:
    """Whether a call of ours left the file: a part, or a temporary file."""
    if info.type != pafs.FileType.File:
        return False
    return TEMPORARY.fullmatch(info.base_name) is not None or _is_own_part(folder, info.base_name)
