"""Files of a command's working directory: Arrow files, of which a few rows can be read, and copies of samples' content."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from aft_ray.cluster.claims import Claims
from aft_ray.cluster.lease import lease
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory

FOLDER = "listing"
ROWS_OF_BATCH = 1024
"""A reader of a few rows reads the batches that have them."""
MARK = b"aft_ray.listing"
"""In the schema of every table that we write, and at the start of every other file."""
HEAD_BYTES = 1 << 16
"""The first bytes of a file, with the mark."""
OWN = re.compile(
    r"(rows-[0-9a-f]{16}\.(arrow|facts|image|text)|names-[0-9a-f]{16}\.arrow"
    r"|(sorted|chosen|gathered|ordered)-\d{5}\.arrow)"
)
LEFT_OVER = re.compile(rf"\.{OWN.pattern}\.[0-9a-f]{{8}}\.tmp")
"""The name of a file that a killed process has not finished."""


@contextmanager
def working_place(workspace: Directory) -> Iterator[Directory]:
    """The workspace's directory of the listing, for this command alone. Its files go when the context ends without an error;
    else they stay for the next command.

    Raises InputError if a file has the name of one of ours and is none: it would be replaced.
    """
    with lease(workspace, FOLDER):
        place = workspace / FOLDER
        for name in _unfinished(place):
            place.delete_file(name)
        if strangers := [name for name in place.names() if OWN.fullmatch(name) and not _is_own(place, name)]:
            raise InputError(
                [f"{place}/{name} was not written by 'aft-ray prepare'. Move it away." for name in strangers]
            )
        yield place
        _delete_own(place)


def left_overs(workspace: Directory) -> dict[str, int]:
    """Bytes of each file that a failed command keeps here for its next start, by name.

    Raises InputError while a command is at work here.
    """
    claims = Claims(workspace / "leases" / FOLDER)
    if at_work := claims.living(claims.all()):
        raise InputError(f"{workspace}/{FOLDER} is in use: {at_work[1]}. Wait for its end.")
    place = workspace / FOLDER
    return {name: place.size(name) for name in _own_files(place)}


def delete_left_overs(workspace: Directory) -> dict[str, int]:
    """Deletes the files of `left_overs` and returns them. Raises InputError as it does."""
    if found := left_overs(workspace):
        with lease(workspace, FOLDER):
            _delete_own(workspace / FOLDER)
    return found


def _delete_own(place: Directory) -> None:
    """Deletes our files, and then the directory if it is empty."""
    for name in _own_files(place):
        place.delete_file(name)
    if place.is_local and not place.names() and Path(place.path).is_dir():
        Path(place.path).rmdir()


def _own_files(place: Directory) -> list[str]:
    """Our files, whole or not."""
    return [*_unfinished(place), *(name for name in place.names() if OWN.fullmatch(name) and _is_own(place, name))]


def _unfinished(place: Directory) -> list[str]:
    """Our files that are not whole. One that has no byte yet is nobody's loss."""
    names = filter(LEFT_OVER.fullmatch, place.names())
    return [name for name in names if not place.size(name) or _is_own(place, name)]


def _is_own(place: Directory, name: str) -> bool:
    try:
        return MARK in read_bytes(place, name, 0, HEAD_BYTES)
    except OSError:  # a folder
        return False


def numbered_file(kind: str, number: int) -> str:
    return f"{kind}-{number:05d}.arrow"


def write_table(place: Directory, name: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), MARK: b""})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=ROWS_OF_BATCH)
    place.write(name, sink.getvalue())


def write_bytes(place: Directory, name: str, content: bytes) -> None:
    place.write(name, MARK + content)


def read_whole(place: Directory, name: str) -> bytes:
    """The content that `write_bytes` has written."""
    return place.read(name).removeprefix(MARK)


def read_table(place: Directory, name: str, start: int, stop: int) -> pa.Table:
    """Some rows of a file, without a copy on a local disk."""
    path = f"{place}/{name}"
    with pa.memory_map(path) if place.is_local else place.filesystem.open_input_file(path) as source:
        reader = pa.ipc.open_file(source)
        first = start // ROWS_OF_BATCH
        numbers = range(first, max(first, -(-stop // ROWS_OF_BATCH)))
        table = pa.Table.from_batches(map(reader.get_batch, numbers), reader.schema)
        return table.slice(start - first * ROWS_OF_BATCH, stop - start)


@contextmanager
def new_copy(place: Directory, name: str) -> Iterator[Any]:
    """A file for content that has no room in memory. It is there, whole, when the context ends without an error."""
    path = Path(place.path, name)
    part = f"{place}/.{name}.{uuid.uuid4().hex[:8]}.tmp" if place.is_local else f"{place}/{name}"
    if place.is_local:
        path.parent.mkdir(parents=True, exist_ok=True)
    with place.filesystem.open_output_stream(part, compression=None) as stream:
        stream.write(MARK)
        yield stream
    if place.is_local:
        with open(part, "rb") as written:
            os.fsync(written.fileno())
        os.replace(part, path)


def read_bytes(place: Directory, name: str, start: int, size: int) -> bytes:
    """Some bytes of a file, fewer at its end."""
    with place.filesystem.open_input_file(f"{place}/{name}") as file:
        return bytes(file.read_at(size, start))
