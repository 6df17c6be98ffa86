"""Entries of shards that are written long before their manifest, by other processes than the one that writes it.

They are kept in a hidden file beside the shards, a note, so that nobody must read all shards again for their checksums. An entry
counts while the shard is the file that it was made from, by its size and its time. Other people's files with a note's name are
neither replaced nor deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow.fs as pafs
from typing_extensions import TypedDict

from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.store.manifest import ShardEntry
from aft_ray.store.unknown_files import json_object

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
    name, files = _name(number, of), _files(directory)
    before = _counting(directory, name, files, fingerprint) if name in files else ()
    shards = {
        index: {"written_ns": file.mtime_ns, "entry": entry}
        for index, entry in {**dict(before), **entries}.items()
        if (file := files.get(entry["file"])) and file.mtime_ns is not None
    }
    directory.write_json(name, {"fingerprint": dict(fingerprint), "shards": shards})


def kept_entries(directory: Directory, fingerprint: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The entries of all ranges that still count, by shard. Raises InputError if a note is damaged."""
    files = _files(directory)
    return {
        index: entry
        for name in _own_notes(directory, files)
        for index, entry in _counting(directory, name, files, fingerprint)
    }


def delete_kept_entries(directory: Directory) -> None:
    for name in _own_notes(directory, _files(directory)):
        directory.delete_file(name)


def check_note(directory: Directory, number: int, of: int) -> None:
    """Raises InputError if somebody else's file has the name of this range's note."""
    name = _name(number, of)
    if directory.has(name) and not is_own_note(directory, name):
        raise InputError(f"{directory}/{name} was not written by 'aft-ray extract'. Move it away.")


def is_own_note(directory: Directory, name: str) -> bool:
    """Whether a file with the name of a note has the content of one."""
    return json_object(directory, name).keys() == {"fingerprint", "shards", "digest"}


def _name(number: int, of: int) -> str:
    return f".entries-{number}-of-{of}.json"


def _own_notes(directory: Directory, files: Iterable[str]) -> list[str]:
    return [name for name in files if NOTE.fullmatch(name) and is_own_note(directory, name)]


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
