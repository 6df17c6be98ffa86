"""Pictures in folders, read in parts: a few folders each, or a piece of a very large one. In a store, rows of its listing."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.base import Modality
from aft_ray.datasets.items import UNKNOWN, Coded, Items, Texts
from aft_ray.datasets.parts import Facts, Head, Part, Plan
from aft_ray.datasets.sources.labels import Labels
from aft_ray.datasets.sources.pictures import SUFFIXES, read_picture
from aft_ray.datasets.sources.store_folders import NAME, SIZE, Listed, Names, StoreFolder, states_below
from aft_ray.datasets.sources.walk import is_wanted, parts_of
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.places import AnyPath
from aft_ray.recipe.remote import RemotePath

PART_FILES = 10_000
"""Files of the folders that make a part together, at least."""
PIECE_FILES = 500_000
"""Files of a folder, or of a piece of it, at most: by the hash of their names, which stays when others come or go."""
Files = Sequence[tuple[str, int]]
"""Names and sizes; UNKNOWN where there is no file to read."""


@dataclass(frozen=True)
class Folder:
    """A folder that holds pictures. name: its path below the root. split: a place in SPLITS, or UNKNOWN. count: its pictures."""

    name: str
    label: int
    split: int
    count: int


@dataclass(frozen=True)
class Piece:
    """Pictures of a folder on a disk: of `number` shares, by the hash of their names, that at `place`."""

    folder: Folder
    place: int
    number: int

    @property
    def count(self) -> int:
        return self.folder.count // self.number

    def files(self, root: Path) -> Files:
        files = _files(root / self.folder.name)
        if self.number == 1:
            return files
        return [file for file in files if crc32(os.fsencode(file[0])) % self.number == self.place]


@dataclass(frozen=True)
class Rows:
    """Pictures of a folder in a store: some rows of its listing."""

    folder: Folder
    names: Names
    start: int
    count: int


@dataclass(frozen=True)
class Folders:
    """The folders whose pictures are samples. left_out: files that are none."""

    classes: tuple[str, ...]
    read: tuple[Folder, ...]
    left_out: Counter[str]
    notes: tuple[str, ...]


def _files(folder: Path) -> Files:
    """The pictures right inside a folder of a disk, sorted. A folder with a picture's name is none."""
    found: list[tuple[str, int]] = []
    opened = os.open(folder, os.O_RDONLY)  # the system asks for a file's state by its name in it: not by the whole path
    try:
        with os.scandir(opened) as entries:
            for entry in entries:
                if is_wanted(entry.name, SUFFIXES):
                    try:
                        state = entry.stat()
                    except OSError:  # a broken link: reading it says so
                        found.append((entry.name, UNKNOWN))
                        continue
                    kind = stat.S_IFMT(state.st_mode)
                    if kind != stat.S_IFDIR:
                        found.append((entry.name, state.st_size if kind == stat.S_IFREG else UNKNOWN))
    finally:
        os.close(opened)
    return sorted(found)


@dataclass(frozen=True)
class Pictures(Plan):
    """The pictures of a data set. groups: what each part reads."""

    root: AnyPath
    groups: tuple[tuple[Any, ...], ...]
    classes: tuple[str, ...]
    left_out: Counter[str]
    notes: tuple[str, ...]

    @property
    def parts(self) -> list[tuple[Any, ...]]:
        return [(self.root, group) for group in self.groups]

    def name_of(self, part: int) -> str:
        group = self.groups[part]
        names = dict.fromkeys(str(self.root / piece.folder.name) for piece in (group[0], group[-1]))
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


@dataclass(frozen=True)
class PicturesOnDisk(Pictures):
    root: Path

    is_lasting = False  # a folder's state does not tell when a picture in it is written anew

    @classmethod
    def of(cls, root: Path, folders: Folders) -> PicturesOnDisk:
        return cls(root, tuple(_groups(_pieces(folders.read))), folders.classes, folders.left_out, folders.notes)

    @staticmethod
    def scan(root: Path, pieces: Sequence[Piece]) -> Part:
        names, sizes, counts = Texts(), list[int](), []
        for piece in pieces:
            files = piece.files(root)
            counts.append(len(files))
            below = f"{piece.folder.name}/" if piece.folder.name else ""
            names.extend([below + name for name, _ in files])
            sizes += [size for _, size in files]
        return _part(names.column(), np.array(sizes, np.int64), [piece.folder for piece in pieces], counts)

    def states(self) -> list[Any]:
        return [[_changed(self.root / piece.folder.name) for piece in group] for group in self.groups]


@dataclass(frozen=True)
class PicturesInStore(Pictures):
    """listed: the state of each folder, by its name, also of those that are not read."""

    root: RemotePath
    listed: Mapping[str, str]

    @classmethod
    def of(cls, root: RemotePath, found: Listed, folders: Folders) -> PicturesInStore:
        groups = tuple(_groups(_rows(folders.read, found.folders)))
        listed = {folder.name: folder.state for folder in found.folders}
        return cls(root, groups, folders.classes, folders.left_out, folders.notes, listed)

    @staticmethod
    def scan(root: RemotePath, group: Sequence[Rows]) -> Part:
        tables = []
        for _, one_file in groupby(group, key=lambda rows: rows.names.digest):
            own = [*one_file]
            start, stop = own[0].start, own[-1].start + own[-1].count
            table = own[0].names.read(start, stop)
            tables += [table.slice(rows.start - start, rows.count) for rows in own]
        whole = pa.concat_tables(tables)
        folders, counts = [rows.folder for rows in group], [rows.count for rows in group]
        return _part(whole.column(NAME), whole.column(SIZE).to_numpy(), folders, counts)

    def states(self) -> list[Any]:
        """As they were when the folders were listed, and what the folders mean among the others."""
        return [fingerprint([_state(rows) for rows in group]) for group in self.groups]

    def changed(self, before: Sequence[Any], tasks: Tasks) -> Iterator[str]:
        """The folders of the parts, and new ones."""
        now, read = (
            states_below(self.root, SUFFIXES, tasks),
            {rows.folder.name for group in self.groups for rows in group},
        )
        for name in sorted(read | (now.keys() - self.listed.keys()), key=parts_of):
            if self.listed.get(name) != now.get(name):
                yield str(self.root / name)


def _state(rows: Rows) -> list[Any]:
    return [rows.names.digest, rows.start, rows.count, rows.folder.label, rows.folder.split]


def _part(names: pa.ChunkedArray, sizes: np.ndarray, folders: Sequence[Folder], counts: Sequence[int]) -> Part:
    """counts: how many of the pictures each folder has."""
    labels = Labels("classification", ("folder",), ())
    for folder, count in zip(folders, counts, strict=True):
        if count:
            labels.add([folder.label], partial(str, folder.name))
    codes = np.array([labels.values.get(folder.label, UNKNOWN) for folder in folders], np.int32)
    splits = np.array([folder.split for folder in folders], np.int8)
    items = Items(names, Coded((), np.repeat(codes, counts)), sizes, np.repeat(splits, counts))
    return Part(items, pa.table({NAME: names}), Facts(labels, items.labels_of(), frozenset()))


def _pieces(folders: Iterable[Folder]) -> Iterator[Piece]:
    for folder in folders:
        number = -(-folder.count // PIECE_FILES)
        yield from (Piece(folder, place, number) for place in range(number))


def _rows(folders: Iterable[Folder], listed: Iterable[StoreFolder]) -> Iterator[Rows]:
    found = {folder.name: folder for folder in listed}
    for folder in folders:
        own = found[folder.name]
        assert own.names is not None, "the names were kept"
        for start in range(0, own.count, PART_FILES):
            yield Rows(folder, own.names, own.start + start, min(PART_FILES, own.count - start))


def _groups(pieces: Iterable[Piece | Rows]) -> Iterator[tuple[Piece | Rows, ...]]:
    group, count = list[Piece | Rows](), 0
    for piece in pieces:
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
