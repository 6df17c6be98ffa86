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
from typing import Any, BinaryIO

import numpy as np

from aft_ray.datasets.base import Content, Modality
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
    """Byte strings in one file, appended in order. once: equal ones share their place, unless they are far apart."""

    def __init__(self, file: BinaryIO, *, once: bool = False) -> None:
        self.file = file
        self.bounds = array("q", [file.tell()])
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

    def spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each byte string, its start in the file and its size."""
        bounds = np.array(self.bounds, np.int64)
        places = slice(None) if self.places is None else np.array(self.places, np.int64)
        return bounds[:-1][places], np.diff(bounds)[places]


class Spools:
    """The parts of samples' content, each kind in a file of its own. Of pairs, the first is the picture."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self.spools = [Spool(file, once=number + 1 < len(files)) for number, file in enumerate(files)]

    @classmethod
    def temporary(cls, num_parts: int) -> Spools:
        """In files that go with this process."""
        return cls([tempfile.TemporaryFile(prefix="aft-ray-") for _ in range(num_parts)])

    def append(self, parts: Sequence[bytes]) -> None:
        for spool, part in zip(self.spools, parts, strict=True):
            spool.append(part)

    def finish(self) -> None:
        for spool in self.spools:
            spool.finish()

    def read(self, index: int) -> list[bytes]:
        """The parts of a sample. Raises ValueError, with the reason, if one is missing."""
        return checked(spool.read(index) for spool in self.spools)


def checked(parts: Iterable[bytes]) -> list[bytes]:
    """Parts without their first byte. Raises ValueError, with the reason, if one is missing."""
    found = [*parts]
    for part in found:
        if part[:1] == BAD:
            raise ValueError(part[1:].decode())
    return [part[1:] for part in found]


def content_of(parts: Sequence[bytes], modality: Modality) -> Content:
    if modality == "image":
        return parts[0]
    return parts[0].decode() if modality == "text" else (parts[0], parts[1].decode())


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
    def kinds(self) -> tuple[str, ...]:
        return (*(("image",) if self.image else ()), *(("text",) if self.texts else ()))

    def parts(self, row: Row, folder: AnyPath) -> list[bytes]:
        """The encoded picture, the text or both, each after the byte GOOD; where one is missing, the reason after BAD."""
        makers: list[Callable[[], bytes]] = []
        if self.image:
            makers.append(lambda: image_bytes(row[self.image or ""], folder))
        if self.texts:
            makers.append(lambda: self.text(row).encode())
        return [_attempt(make) for make in makers]

    @property
    def modality(self) -> Modality:
        return "text" if self.image is None else "image+text" if self.texts else "image"

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
    """The content of samples in any order. `rows` yields each sample's parts in order; it is called at the first read."""

    def __init__(self, rows: Callable[[], Iterable[Sequence[bytes]]], num_parts: int) -> None:
        self.rows, self.num_parts = rows, num_parts
        self.spools: Spools | None = None
        self.failed: InputError | None = None
        self.lock = Lock()

    def _fill(self) -> Spools:
        spools = Spools.temporary(self.num_parts)
        for parts in self.rows():
            spools.append(parts)
        spools.finish()
        return spools

    def read(self, index: int) -> list[bytes]:
        """The parts of sample `index`. Raises ValueError, with the reason, if one is missing; InputError for a damaged table."""
        with self.lock:
            if self.failed is not None:
                raise self.failed
            if self.spools is None:
                try:
                    self.spools = self._fill()
                except InputError as error:
                    self.failed = error
                    raise
        return self.spools.read(index)
