"""Pictures and texts without labels, for `predict`: listed on one machine and decoded on many.

The decoding runs in many light processes, so nothing here imports torch by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.cluster.attempts import Watch
from aft_ray.datasets.sources.json_text import decode_text
from aft_ray.datasets.sources.pictures import SUFFIXES as IMAGES
from aft_ray.datasets.sources.pictures import check_image_root, picture_path, read_picture
from aft_ray.datasets.sources.walk import find_below
from aft_ray.datasets.unlabelled_tables import ALL_SUFFIXES, PLAIN, RowForm, list_table, table_kind
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, filesystem_of, is_url, place_at, reached
from aft_ray.recipe.remote import RemotePath
from aft_ray.store.quarantine import UNREADABLE, quarantined_sample

LINE_END = b"\n"


@dataclass(frozen=True)
class Unseen:
    """Samples in a fixed order.

    table: `id`; `image` (encoded bytes, or a path below `root`) or `text` or both; `fault`, why a sample has no content.
    root: a directory's path or URL. left_out: how many other files lie beside the pictures, by suffix.
    """

    table: pa.Table
    root: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    def rows(self, size: int) -> list[dict[str, Any]]:
        """Parts of at most `size` samples: number of the part as `shard`, and a list for each column."""
        starts = range(0, self.table.num_rows, size)
        return [{"shard": k, **self.table.slice(start, size).to_pydict()} for k, start in enumerate(starts)]


def list_unseen(
    location: str, columns: Sequence[str], form: RowForm = PLAIN, *, image_root: str | None = None
) -> Unseen:
    """The samples at a path or URL, with the contents that `columns` names, of `image` and `text`.

    Images: a file, or all in a folder and below. Texts: the lines of a .txt file. Either, or both: a table; its rows
    become samples by `form`; its images are files in its folder (or in `image_root`), or encoded bytes.
    Raises InputError if there is nothing of the kind.
    """
    place = reached(location, location) if is_url(location) else Path(filesystem_of(location)[1])
    kind, form, is_file = table_kind(place.name), form.reading(columns), place.is_file()
    left_out: Mapping[str, int] = {}
    if not place.exists():
        hint = " Texts are asked for in a file: a .txt with one on each line, or a table." if "text" in columns else ""
        raise InputError(f"{location} does not exist.{hint}")
    root = place.parent if is_file else place
    if is_file and kind:
        root = root if image_root is None else _absolute(image_root)
        table = list_table(place, kind, form, root)
        if (
            image_root is not None
            and pa.types.is_string(table["image"].type)
            and table["image"].null_count < len(table)
        ):
            check_image_root(root)
    elif list(columns) == ["image"]:
        table, left_out = _list_images(place, location)
    elif list(columns) == ["text"] and is_file and place.name.lower().endswith(".txt"):
        table = _list_lines(place.read_bytes(), form, location)
    else:
        kinds = ", ".join([".txt", *ALL_SUFFIXES] if list(columns) == ["text"] else ALL_SUFFIXES)
        raise InputError(
            f"{location} must be a file of one of the kinds {kinds}: the student reads {' and '.join(columns)}."
        )
    if table.num_rows == 0:
        raise InputError(f"{location} holds nothing to predict.")
    return Unseen(table, str(root), left_out)


def _absolute(root: str) -> AnyPath:
    place = place_at(root)
    return place if isinstance(place, RemotePath) else place.absolute()


def _list_lines(content: bytes, form: RowForm, location: str) -> pa.Table:
    """A sample for each line of a file, its text put together as a row with one column."""
    texts = form.content.texts
    if len(texts) > 1:
        raise InputError(
            f"{location} has one text on a line; the run's samples were made of {' and '.join(texts)}. Give a table with these"
            " columns."
        )
    lines = _decoded(content, location).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found: dict[str, list[str | None]] = {"text": [], "fault": []}
    for line in lines if lines[-1] else lines[:-1]:
        text = fault = None
        try:
            text = form.text({texts[0]: line})
        except ValueError as error:
            fault = str(error)
        found["text"].append(text)
        found["fault"].append(fault)
    return _table([str(number) for number in range(len(found["text"]))], **found)


def _decoded(content: bytes, location: str) -> str:
    """Raises InputError if a file is no text, with the first line that is none."""
    try:
        return decode_text(content)
    except UnicodeError as error:
        fault = error.__cause__ if isinstance(error.__cause__, UnicodeDecodeError) else None
        where = f"{location}, line {content[: fault.start].count(LINE_END) + 1}" if fault else location
        raise InputError(f"{where}: {error}.") from error


def _table(ids: list[str], **columns: list[str | None]) -> pa.Table:
    """Columns as of `list_table`, null where they are not given."""
    nothing = [None] * len(ids)
    found = {"id": ids, "image": nothing, "text": nothing, "fault": nothing, **columns}
    return pa.table({name: pa.array(values, pa.string()) for name, values in found.items()})


@dataclass(frozen=True)
class DecodeRows:
    """Turns a part from `Unseen.rows` into `shard`, `id`, `inputs0` and so on, the readable samples' inputs, and `errors`, the
    reasons of the others, by number.
    """

    root: str
    transforms: Sequence[Any]
    watch: Watch

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        root = place_at(self.root)
        errors: dict[int, str] = {}

        def decoded(number: int) -> list[np.ndarray] | None:
            """One for each transform; None if the sample cannot be read."""
            try:
                if fault := part["fault"][number]:
                    raise ValueError(fault)
                contents = [_content(part[t.column][number], t.column, root) for t in self.transforms]
                return [transform(content) for transform, content in zip(self.transforms, contents, strict=True)]
            except UNREADABLE as error:
                errors[number] = quarantined_sample(part["id"][number], error)["reason"]
                return None

        name = f"part {part['shard']}"
        quarantined: dict[int, dict[str, str]] = {}
        left_out = self.watch.begin(
            name, part["id"], quarantined, lambda number: None if number is None else decoded(number)
        )
        found = [decoded(number) for number in range(len(part["id"])) if number not in left_out]
        rows = [row for row in found if row is not None]
        self.watch.done(name)
        errors |= {number: sample["reason"] for number, sample in quarantined.items()}
        inputs: dict[str, Any] = {
            f"inputs{k}": np.stack([row[k] for row in rows]) if rows else [] for k in range(len(self.transforms))
        }
        return {"shard": part["shard"], "id": part["id"], "errors": errors, **inputs}


def _content(value: Any, column: str, root: AnyPath) -> bytes | str:
    """Raises ValueError or OSError if there is none."""
    if value is None:
        raise ValueError(f"it has no {column}")
    if column == "text" or isinstance(value, bytes):
        return value
    return read_picture(picture_path(root, value))


def _list_images(place: AnyPath, location: str) -> tuple[pa.Table, Mapping[str, int]]:
    """The pictures, and how many other files there are by suffix."""
    left_out: Mapping[str, int] = {}
    if place.is_file():
        suffix = place.suffix.lower()
        if suffix and suffix not in IMAGES:
            raise InputError(f"{location} must be a picture, a folder of them or a table ({', '.join(ALL_SUFFIXES)}).")
        files = [place.name]
    else:
        pictures = find_below(place, IMAGES)
        files, left_out = pictures.names, pictures.left_out
    if not files:
        raise InputError(f"{location} holds no images ({', '.join(IMAGES)}).")
    if unnamed := [name for name in files if _has_bytes(name)]:
        raise InputError(f"{location}: the name of {unnamed[0]} is no text. Rename the file.")
    return _table(files, image=list(files)), left_out


def _has_bytes(name: str) -> bool:
    """Whether a file's name holds bytes that are no text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False
