"""The content of tables' rows: copied once into temporary files, then read in any order by any thread.

A shard is a random sample of the whole, but tables are read from the first row to the last. The copies keep memory
independent of the data's size; they lie where TMPDIR says and go when the process ends. Pairs share the copy of their picture.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
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


MOST_REMEMBERED = 2**17
"""Pictures whose next pair is recognised: 25 MB. Pairs of a picture are rarely this far apart, and else it is copied again."""


class Spool:
    """Byte strings in one temporary file, appended in order. once: equal ones share their place, unless they are far apart."""

    def __init__(self, *, once: bool = False) -> None:
        self.file = tempfile.TemporaryFile(prefix="aft-ray-")
        self.bounds = array("q", [0])
        self.places = array("q") if once else None
        self.remembered = OrderedDict[bytes, int]()

    def append(self, content: bytes) -> None:
        if self.places is None:
            self._write(content)
            return
        digest = blake2b(content, digest_size=16).digest()
        place = self.remembered.pop(digest, None)
        self.remembered[digest] = place = self._write(content) if place is None else place
        self.places.append(place)
        if len(self.remembered) > MOST_REMEMBERED:
            self.remembered.popitem(last=False)

    def _write(self, content: bytes) -> int:
        self.file.write(content)
        self.bounds.append(self.bounds[-1] + len(content))
        return len(self.bounds) - 2

    def finish(self) -> None:
        """Everything is there: it can be read."""
        self.file.flush()
        self.remembered.clear()

    def read(self, index: int) -> bytes:
        place = index if self.places is None else self.places[index]
        start, stop = self.bounds[place], self.bounds[place + 1]
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
        self.spools: list[Spool] | None = None
        self.failed: InputError | None = None
        self.lock = Lock()

    def fill(self, rows: Iterable[Sequence[bytes]]) -> None:
        spools = [Spool(once=part + 1 < self.num_parts) for part in range(self.num_parts)]  # the picture of a pair
        for parts in rows:
            for spool, part in zip(spools, parts, strict=True):
                spool.append(part)
        for spool in spools:
            spool.finish()
        self.spools = spools

    def read(self, index: int) -> list[bytes]:
        """The parts of row `index`. Raises ValueError, with the reason, if one is missing; InputError if the table is damaged."""
        with self.lock:
            if self.failed is not None:
                raise self.failed
            if self.spools is None:
                try:
                    self.fill(self.rows())
                except InputError as error:
                    self.failed = error
                    raise
        assert self.spools is not None
        parts = [spool.read(index) for spool in self.spools]
        for part in parts:
            if part[:1] == BAD:
                raise ValueError(part[1:].decode())
        return [part[1:] for part in parts]
