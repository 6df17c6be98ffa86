"""The content of tables' rows: copied once into a temporary file, then read in any order by any thread.

A shard is a random sample of the whole, but tables are read from the first row to the last. The copy keeps memory
independent of the data's size; it lies where TMPDIR says and goes when the process ends.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from aft_ray.datasets.base import Content
from aft_ray.datasets.sources.pictures import picture_path, read_named_picture
from aft_ray.datasets.sources.tables import Row
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath
from aft_ray.recipe.sections import PROMPT_NAME

GOOD, BAD = b"+", b"-"
"""The first byte of a part: its content follows, or the reason why it has none."""


class Spool:
    """Byte strings in one temporary file, appended in order."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="aft-ray-")
        self.bounds = array("q", [0])

    def append(self, content: bytes) -> None:
        self.file.write(content)
        self.bounds.append(self.bounds[-1] + len(content))

    def read(self, index: int) -> bytes:
        start, stop = self.bounds[index], self.bounds[index + 1]
        return os.pread(self.file.fileno(), stop - start, start)


@dataclass(frozen=True)
class RowContent:
    """Which columns of a row are its content. texts: joined by `prompt`, or one line each. image: the picture's column."""

    texts: tuple[str, ...]
    prompt: str | None
    image: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        return (*((self.image,) if self.image else ()), *self.texts)

    @property
    def num_parts(self) -> int:
        return bool(self.image) + bool(self.texts)

    def parts(self, row: Row, folder: AnyPath) -> list[bytes]:
        """The encoded picture, the text or both, each after the byte GOOD; where one is missing, the reason after BAD."""
        makers: list[Callable[[], bytes]] = []
        if self.image:
            makers.append(lambda: image_bytes(row[self.image or ""], folder))
        if self.texts:
            makers.append(lambda: self.text(row).encode())
        return [_attempt(make) for make in makers]

    def content(self, parts: Sequence[bytes]) -> Content:
        if self.image is None:
            return parts[0].decode()
        return (parts[0], parts[1].decode()) if self.texts else parts[0]

    def text(self, row: Row) -> str:
        """The columns of texts as one text. Raises ValueError if there is none."""
        found = {name: "" if row[name] is None else row[name] for name in self.texts}
        for name, text in found.items():
            if not isinstance(text, str):
                raise ValueError(
                    f"column {name} holds {str(text)[:60]}, which is of type {type(text).__name__}, not a text"
                )
        if not any(text.strip() for text in found.values()):
            raise ValueError("its text is empty")
        if self.prompt is None:
            return "\n".join(found.values())
        return PROMPT_NAME.sub(lambda place: found[place[1]], self.prompt)


def _attempt(make: Callable[[], bytes]) -> bytes:
    try:
        return GOOD + make()
    except (OSError, ValueError) as error:
        return BAD + str(error).encode(errors="replace")


def image_bytes(value: Any, folder: AnyPath) -> bytes:
    """The encoded picture that a column holds: bytes, a path, or the hub's {bytes, path}.

    Raises OSError if there is no such file, ValueError if there is no picture or its path leads outside `folder`.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return read_named_picture(picture_path(folder, value))
    if not isinstance(value, bytes) or not value:
        raise ValueError(
            "it has no picture" if value in (None, b"", "") else f"a value of type {type(value).__name__} is no picture"
        )
    return value


class Contents:
    """The content of rows in any order. `rows` yields each row's parts in order; it is called at the first read."""

    def __init__(self, rows: Callable[[], Iterable[Sequence[bytes]]], num_parts: int) -> None:
        self.rows, self.num_parts = rows, num_parts
        self.spool: Spool | None = None
        self.failed: InputError | None = None
        self.lock = Lock()

    def fill(self, rows: Iterable[Sequence[bytes]]) -> None:
        spool = Spool()
        for parts in rows:
            for part in parts:
                spool.append(part)
        spool.file.flush()
        self.spool = spool

    def read(self, index: int) -> list[bytes]:
        """The parts of row `index`. Raises ValueError, with the reason, if one is missing; InputError if the table is damaged."""
        with self.lock:
            if self.failed is not None:
                raise self.failed
            if self.spool is None:
                try:
                    self.fill(self.rows())
                except InputError as error:
                    self.failed = error
                    raise
        assert self.spool is not None
        parts = [self.spool.read(index * self.num_parts + part) for part in range(self.num_parts)]
        for part in parts:
            if part[:1] == BAD:
                raise ValueError(part[1:].decode())
        return [part[1:] for part in parts]
