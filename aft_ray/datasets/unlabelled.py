"""What a student is asked about: pictures and texts without labels, listed on one machine and decoded on many.

The decoding runs in many light processes, so nothing here imports torch by itself.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.json
import pyarrow.parquet as pq

from aft_ray.cluster.attempts import Watch
from aft_ray.datasets.sources.pictures import SUFFIXES as IMAGES
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.store.quarantine import UNREADABLE, bad_sample
from aft_ray.store.workspace import filesystem_of

READERS = {".csv": pyarrow.csv.read_csv, ".jsonl": pyarrow.json.read_json, ".parquet": pq.read_table}
IDS = ("id", "sample_id")
"""Columns of a table that can name its rows; they are numbered where it has neither."""


@dataclass(frozen=True)
class Unseen:
    """Samples in a fixed order.

    table: `id`, and `image` (encoded bytes, or a path below `root`) or `text` or both. root: a directory's path or URL.
    """

    table: pa.Table
    root: str

    def rows(self, size: int) -> list[dict[str, Any]]:
        """Parts of at most `size` samples: number of the part as `shard`, and a list for each column."""
        starts = range(0, self.table.num_rows, size)
        return [{"shard": k, **self.table.slice(start, size).to_pydict()} for k, start in enumerate(starts)]


def list_unseen(location: str, columns: Sequence[str]) -> Unseen:
    """The samples at a path or URL, with the contents that `columns` names, of `image` and `text`.

    Images: a file, or all in a folder and below. Texts: the lines of a .txt file. Either, or both: a table (.csv, .jsonl,
    .parquet) with columns of these names; its images are files beside it or, in Parquet, their bytes.
    Raises InputError if there is nothing of the kind.
    """
    filesystem, path = filesystem_of(location)
    found = filesystem.get_file_info(path)
    suffix = PurePosixPath(path).suffix.lower()
    if found.type == pafs.FileType.NotFound:
        raise InputError(f"{location} does not exist.")
    if found.is_file and suffix in READERS:
        table = _read_table(_read(filesystem, path), suffix, columns, location)
    elif list(columns) == ["image"]:
        table = _list_images(filesystem, found, location)
    elif list(columns) == ["text"] and suffix == ".txt":
        lines = _read(filesystem, path).decode("utf-8", errors="replace").splitlines()
        table = pa.table({"id": _numbers(len(lines)), "text": lines})
    else:
        kinds = ", ".join([".txt", *READERS] if list(columns) == ["text"] else READERS)
        raise InputError(
            f"{location} must be a file of one of the kinds {kinds}: the student reads {' and '.join(columns)}."
        )
    if table.num_rows == 0:
        raise InputError(f"{location} holds nothing to predict.")
    return Unseen(table, location if not found.is_file else _parent(location, path))


@dataclass(frozen=True)
class DecodeRows:
    """Of a part from `Unseen.rows`: `shard`, `id`, `inputs0` and so on, the inputs of what can be read, and `errors`, why
    the rest cannot, as JSON by number.
    """

    root: str
    transforms: Sequence[Any]
    watch: Watch

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        place = Directory(*filesystem_of(self.root))
        errors: dict[int, str] = {}

        def decoded(number: int) -> list[np.ndarray] | None:
            """One for each transform; None if the sample cannot be read."""
            try:
                contents = [_content(part[t.column][number], t.column, place) for t in self.transforms]
                return [transform(content) for transform, content in zip(self.transforms, contents, strict=True)]
            except UNREADABLE as error:
                errors[number] = bad_sample(part["id"][number], error)["reason"]
                return None

        name = f"part {part['shard']}"
        bad: dict[int, dict[str, str]] = {}
        left_out = self.watch.begin(name, part["id"], bad, lambda number: None if number is None else decoded(number))
        found = [decoded(number) for number in range(len(part["id"])) if number not in left_out]
        rows = [row for row in found if row is not None]
        self.watch.done(name)
        errors |= {number: sample["reason"] for number, sample in bad.items()}
        inputs: dict[str, Any] = {
            f"inputs{k}": np.stack([row[k] for row in rows]) if rows else [] for k in range(len(self.transforms))
        }
        return {"shard": part["shard"], "id": part["id"], "errors": json.dumps(errors), **inputs}


def _content(value: Any, column: str, place: Directory) -> bytes | str:
    """Raises ValueError or OSError if there is none."""
    if value is None:
        raise ValueError(f"it has no {column}")
    if column == "text" or isinstance(value, bytes):
        return value
    return _read(place.filesystem, str(PurePosixPath(place.path) / value))


def _read(filesystem: pafs.FileSystem, path: str) -> bytes:
    place = PurePosixPath(path)
    return Directory(filesystem, str(place.parent)).read(place.name)


def _list_images(filesystem: pafs.FileSystem, found: pafs.FileInfo, location: str) -> pa.Table:
    if found.is_file:
        files = [PurePosixPath(found.path).name]
    else:
        below = filesystem.get_file_info(pafs.FileSelector(found.path, recursive=True))
        paths = (info.path for info in below if info.is_file)
        files = sorted(
            str(PurePosixPath(path).relative_to(found.path))
            for path in paths
            if PurePosixPath(path).suffix.lower() in IMAGES
        )
    if not files:
        raise InputError(f"{location} holds no images ({', '.join(IMAGES)}).")
    return pa.table({"id": files, "image": files})


def _read_table(content: bytes, suffix: str, columns: Sequence[str], location: str) -> pa.Table:
    """`id` and `columns` of a table. Raises InputError if it cannot be read, or has no such columns."""
    try:
        table = READERS[suffix](io.BytesIO(content))
    except pa.ArrowInvalid as error:
        raise InputError(f"{location} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if missing := [name for name in columns if name not in table.column_names]:
        raise InputError(
            f"{location} has no column {' and '.join(map(repr, missing))}. Its columns: {', '.join(table.column_names)}."
        )
    named = next((name for name in IDS if name in table.column_names), None)
    ids = table.column(named).cast(pa.string()) if named else pa.array(_numbers(table.num_rows))
    contents = [table.column(name) for name in columns]
    kept = [c if name == "image" else c.cast(pa.string()) for name, c in zip(columns, contents, strict=True)]
    return pa.table([ids, *kept], names=["id", *columns])


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _parent(location: str, path: str) -> str:
    """The directory of a file, as a URL if the file has one."""
    if "://" not in location:
        return str(PurePosixPath(path).parent)
    place, mark, query = location.partition("?")
    return place.rpartition("/")[0] + mark + query
