"""Entries of shards that are written long before their manifest, by other processes than the one that writes it.

They are kept in a hidden file beside the shards, so that nobody must read all shards again for their checksums. An entry counts
while the shard is the file that it was made from, by its size and its time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.fs as pafs
from typing_extensions import TypedDict

from aft_ray.store.files import Directory
from aft_ray.store.manifest import ShardEntry

NOTE = re.compile(r"\.entries-\d+-of-\d+\.json")
WAY_OUT = "Delete it: its shards are then read again."

Entries = Mapping[int, dict[str, Any]]
"""By shard, what `write_shard` returned."""


class _Kept(TypedDict):
    written_ns: int
    entry: ShardEntry


class _Note(TypedDict):
    fingerprint: dict[str, Any]
    shards: dict[str, _Kept]


def keep_entries(directory: Directory, number: int, of: int, fingerprint: Mapping[str, Any], entries: Entries) -> None:
    """Keeps the entries of shards just written by the process that has range `number` of `of`, beside its earlier ones."""
    name, files = f".entries-{number}-of-{of}.json", _files(directory)
    before = _counting(directory, name, files, fingerprint) if name in files else ()
    shards = {
        index: {"written_ns": file.mtime_ns, "entry": entry}
        for index, entry in {**dict(before), **entries}.items()
        if (file := files.get(entry["file"])) and file.mtime_ns is not None
    }
    directory.write_json(name, {"fingerprint": dict(fingerprint), "shards": shards})


def kept_entries(directory: Directory, fingerprint: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The entries of all ranges that still count, by shard. Raises InputError if a file with them is damaged."""
    files = _files(directory)
    notes = filter(NOTE.fullmatch, files)
    return {index: entry for name in notes for index, entry in _counting(directory, name, files, fingerprint)}


def delete_kept_entries(directory: Directory) -> None:
    for name in filter(NOTE.fullmatch, _files(directory)):
        directory.delete_file(name)


def _files(directory: Directory) -> dict[str, pafs.FileInfo]:
    return {info.base_name: info for info in directory.infos() if info.type == pafs.FileType.File}


def _counting(
    directory: Directory, name: str, files: Mapping[str, pafs.FileInfo], fingerprint: Mapping[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    note = directory.read_json(name, _Note, WAY_OUT)
    if note["fingerprint"] != fingerprint:
        return
    for index, kept in note["shards"].items():
        entry, file = kept["entry"], files.get(kept["entry"]["file"])
        if file and (file.size, file.mtime_ns) == (entry["num_bytes"], kept["written_ns"]):
            yield int(index), entry
