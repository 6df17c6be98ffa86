"""Pictures in folders, read in parts: a few folders each, or a piece of a very large one."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from aft_ray.datasets.base import Modality
from aft_ray.datasets.items import UNKNOWN, Coded, Items, Texts, sizes_of
from aft_ray.datasets.parts import Facts, Head, Part, Plan
from aft_ray.datasets.sources.labels import Labels
from aft_ray.datasets.sources.pictures import SUFFIXES, read_picture
from aft_ray.datasets.sources.walk import Found, is_wanted
from aft_ray.recipe.places import AnyPath

PART_FILES = 10_000
"""Files of the folders that make a part together, at least."""
PIECE_FILES = 500_000
"""Files of a folder, or of a piece of it, at most: by the hash of their names, which stays when others come or go."""
NAME = "name"
Files = Sequence[tuple[str, int | None]]
"""Names and sizes; no size where there is no file to read."""


@dataclass(frozen=True)
class Folder:
    """A folder that holds pictures. name: its path below the root. split: a place in SPLITS, or UNKNOWN. count: its pictures.
    piece: of how many, and which, its files are read. listed: its files, where they are known.
    """

    name: str
    label: int
    split: int
    count: int
    piece: tuple[int, int] = (0, 1)
    listed: Files | None = None

    def pieces(self) -> Iterator[Folder]:
        number = -(-self.count // PIECE_FILES)
        yield from (replace(self, count=self.count // number, piece=(place, number)) for place in range(number))

    def files(self, root: AnyPath) -> Files:
        if self.listed is not None:
            return self.listed
        place, number = self.piece
        assert isinstance(root, Path), "files in a store are listed"
        files = _files(root / self.name)
        return files if number == 1 else [file for file in files if crc32(os.fsencode(file[0])) % number == place]


@dataclass(frozen=True)
class Folders:
    """The folders whose pictures are samples. left_out: files that are none."""

    classes: tuple[str, ...]
    read: tuple[Folder, ...]
    left_out: Counter[str]
    notes: tuple[str, ...]


def _files(folder: Path) -> Files:
    """The pictures right inside a folder of a disk, sorted. A folder with a picture's name is none."""
    found: list[tuple[str, int | None]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_wanted(entry.name, SUFFIXES):
                try:
                    state = entry.stat()
                except OSError:  # a broken link: reading it says so
                    found.append((entry.name, None))
                    continue
                if not stat.S_ISDIR(state.st_mode):
                    found.append((entry.name, state.st_size if stat.S_ISREG(state.st_mode) else None))
    return sorted(found)


@dataclass(frozen=True)
class Pictures(Plan):
    """The pictures of a data set. groups: the folders of each part."""

    root: AnyPath
    groups: tuple[tuple[Folder, ...], ...]
    classes: tuple[str, ...]
    left_out: Counter[str]
    notes: tuple[str, ...]

    is_lasting = False  # a folder's state does not tell when a picture in it is written anew

    @classmethod
    def on_disk(cls, root: Path, folders: Folders) -> Pictures:
        return cls(root, tuple(_groups(folders.read)), folders.classes, folders.left_out, folders.notes)

    @classmethod
    def listed(cls, found: Found, folders: Folders) -> Pictures:
        """found: has all names and sizes."""
        files: dict[str, list[tuple[str, int | None]]] = {}
        for path, size in zip(found.names, found.sizes or (), strict=True):
            folder, _, name = path.rpartition("/")
            files.setdefault(folder, []).append((name, size))
        known = (replace(folder, listed=files[folder.name]) for folder in folders.read)
        return cls(found.root, (tuple(known),), folders.classes, folders.left_out, folders.notes)

    @property
    def why_in_memory(self) -> str | None:
        return None if isinstance(self.root, Path) else "a folder in a store is listed at once"

    @property
    def parts(self) -> list[tuple[Any, ...]]:
        return [(self.root, group) for group in self.groups]

    @staticmethod
    def scan(root: AnyPath, folders: Sequence[Folder]) -> Part:
        names, sizes = Texts(), list[int | None]()
        labels = Labels("classification", ("folder",), ())
        counts = []
        for folder in folders:
            files = folder.files(root)
            counts.append(len(files))
            if not files:
                continue
            labels.add([folder.label], partial(str, folder.name))
            below = f"{folder.name}/" if folder.name else ""
            for name, size in files:
                names.append(below + name)
                sizes.append(size)
        return _part(names.column(), sizes, folders, counts, labels)

    def states(self) -> list[Any]:
        if not isinstance(self.root, Path):
            return [None for _ in self.groups]
        return [[_changed(self.root / folder.name) for folder in group] for group in self.groups]

    def name_of(self, part: int) -> str:
        group = self.groups[part]
        names = dict.fromkeys(str(self.root / folder.name) for folder in (group[0], group[-1]))
        return " to ".join(names)

    def head(self, whole: Facts, digest: str) -> Head:
        labels = tuple(whole.labels.values)
        return Head("image", self.classes, labels, "classification", None, {}, self.left_out, self.notes)

    @property
    def uris(self) -> Callable[[pa.Table], Callable[[int], str]]:
        return self._uri

    def _uri(self, contents: pa.Table) -> Callable[[int], str]:
        names, root = contents.column(NAME), self.root
        if isinstance(root, Path):
            start = os.path.join(root, "")
            return lambda index: start + names[index].as_py()
        return lambda index: str(root / names[index].as_py())

    def reader(self, modality: Modality, contents: pa.Table) -> Callable[[int], bytes]:
        uri = self._uri(contents)
        return lambda index: read_picture(uri(index))


def _part(
    names: pa.ChunkedArray, sizes: list[int | None], folders: Sequence[Folder], counts: list[int], labels: Labels
) -> Part:
    """counts: pictures of each folder. labels: of the folders that have some."""
    codes = np.array([labels.values.get(folder.label, UNKNOWN) for folder in folders], np.int32)
    splits = np.array([folder.split for folder in folders], np.int8)
    items = Items(names, Coded((), np.repeat(codes, counts)), sizes_of(sizes), np.repeat(splits, counts))
    return Part(items, pa.table({NAME: names}), Facts(labels, items.labels_of(), frozenset()))


def _groups(folders: Sequence[Folder]) -> Iterator[tuple[Folder, ...]]:
    group, count = list[Folder](), 0
    for piece in (piece for folder in folders for piece in folder.pieces()):
        group.append(piece)
        count += piece.count
        if count >= PART_FILES:
            yield tuple(group)
            group, count = [], 0
    if group:
        yield tuple(group)


def _changed(folder: Path) -> int | None:
    """When a file in it was added, removed or renamed."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return None
