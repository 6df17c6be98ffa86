"""Lists the files below a folder of a store: in this process or, once they are many, in tasks, which keep the names in files.

A store tells a thousand names at a time. Folders are listed level by level, until there are enough to share out; each of these is
then listed with all that is below it. So every name is told once, and no process holds them all.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from aft_ray.cluster.progress import Progress
from aft_ray.cluster.tasks import Helpers, Tasks
from aft_ray.datasets.buckets.files import read_table, write_table
from aft_ray.datasets.items import Texts, sizes_of
from aft_ray.datasets.sources.walk import is_hidden, kind_of, parts_of
from aft_ray.recipe.remote import RemotePath
from aft_ray.store.files import Directory
from aft_ray.store.prefetch import prefetched

ENOUGH = 64
"""Folders of a level that are each listed with all that is below them."""
FOLDERS_OF_TASK = 32
THREADS = 8
"""Folders that a process lists at a time. It holds all names of each, some 250 bytes a name."""
FILE_ROWS = 10_000
"""Names that are kept in one file, at least; those of a folder lie in one."""
NAMELESS = "folders without a name"
"""In `left_out`: a key may have two slashes side by side."""
NAME, SIZE = "name", "num_bytes"
File = tuple[str, int | None, int | None]
"""Its path below the root, its size and when it was changed, in nanoseconds."""


@dataclass(frozen=True)
class Lister:
    """Who lists a store: this process, and `helpers` once there is work for them. place: gives the directory for their files."""

    helpers: Helpers | None = None
    place: Callable[[], Directory] | None = None

    def tasks(self, count: int) -> Tasks | None:
        """The helpers' tasks, if so many samples are work for them."""
        return None if self.helpers is None else self.helpers.of(count)

    def keep(self) -> Keep:
        assert self.place is not None, "helpers have a place"
        return partial(in_file, self.place())


ALONE = Lister()


@dataclass(frozen=True)
class Names:
    """Paths below the root, and sizes, of the files of some folders, in memory or in a file of `place`. digest: of both, and of
    when the files were changed.
    """

    digest: str
    table: pa.Table | None = None
    place: Directory | None = None

    @property
    def file(self) -> str:
        return f"names-{self.digest}.arrow"

    def read(self, start: int, stop: int) -> pa.Table:
        if self.table is not None:
            return self.table.slice(start, stop - start)
        assert self.place is not None
        return read_table(self.place, self.file, start, stop)


Keep = Callable[[Names], Names | None]


def in_memory(names: Names) -> Names:
    return names


def in_file(place: Directory, names: Names) -> Names:
    """A task that runs twice writes the same file, or another one if the folder has changed."""
    if names.table is not None:
        write_table(place, names.file, names.table)
    return Names(names.digest, place=place)


def nowhere(names: Names) -> None:
    """Where the state of each folder is all that is asked for."""


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """The files right inside a folder. name: its path below the root. state: another one when a file comes, goes or changes.
    start, count: its rows of `names`.
    """

    name: str
    state: str
    names: Names | None
    start: int
    count: int


@dataclass(frozen=True)
class Listed:
    """What the listing of some folders told. folders: those that have a file which is wanted. inside: those that are still to be
    listed. left_out: as in `walk.Found`.
    """

    folders: tuple[StoreFolder, ...]
    inside: tuple[str, ...]
    left_out: Counter[str]


def list_below(root: RemotePath, suffixes: Sequence[str], lister: Lister) -> Listed:
    """All files with one of the suffixes, in the order of their folders' parts. Raises ObjectStoreError if the store fails."""
    look, found, left_out, count = Look(root, tuple(suffixes)), list[StoreFolder](), Counter[str](), 0
    size = 1  # this process lists as many folders at a time as it has before: few, if these are large

    def each(folders: Sequence[str], is_deep: bool) -> Iterator[Listed]:
        nonlocal count, size
        start = 0
        while start < len(folders):
            if (tasks := lister.tasks(count)) is not None:
                yield from _in_tasks(tasks, replace(look, is_deep=is_deep, keep=lister.keep()), folders[start:])
                return
            listed = replace(look, is_deep=is_deep).list_folders(folders[start : start + size])
            count += sum(folder.count for folder in listed.folders)
            start, size = start + size, min(2 * size, FOLDERS_OF_TASK)
            yield listed

    for listed in _levels(each):
        found += listed.folders
        left_out += listed.left_out
    if lister.tasks(sum(folder.count for folder in found)) is not None:
        found = [*_all_kept(found, lister.keep())]
    return Listed(tuple(sorted(found, key=lambda folder: parts_of(folder.name))), (), left_out)


def states_below(root: RemotePath, suffixes: Sequence[str], tasks: Tasks) -> dict[str, str]:
    """The state of each folder now."""
    look = Look(root, tuple(suffixes), keep=nowhere)
    found = _levels(lambda folders, is_deep: _in_tasks(tasks, replace(look, is_deep=is_deep), folders))
    return {folder.name: folder.state for listed in found for folder in listed.folders}


def _levels(each: Callable[[Sequence[str], bool], Iterable[Listed]]) -> Iterator[Listed]:
    """each: has folders listed, and all below them if so told."""
    level = [""]
    while level:
        inside = list[str]()
        for listed in each(level, len(level) >= ENOUGH):
            inside += listed.inside
            yield listed
        level = sorted(inside, key=parts_of)


def _in_tasks(tasks: Tasks, look: Look, folders: Sequence[str]) -> Iterator[Listed]:
    with Progress("list", len(folders), "folders") as progress:
        groups = (folders[start : start + FOLDERS_OF_TASK] for start in range(0, len(folders), FOLDERS_OF_TASK))
        for listed in tasks(look.list_folders, ((group,) for group in groups)):
            progress.advance(min(FOLDERS_OF_TASK, progress.total - progress.done))
            yield listed


def _all_kept(folders: Iterable[StoreFolder], keep: Keep) -> Iterator[StoreFolder]:
    for _, own in groupby(folders, key=lambda folder: folder.names):
        group = [*own]
        names = group[0].names and keep(group[0].names)
        yield from (replace(folder, names=names) for folder in group)


@dataclass(frozen=True)
class _Files:
    """The files right inside a folder."""

    folder: str
    state: str
    table: pa.Table


@dataclass(frozen=True)
class _Seen:
    files: list[_Files]
    inside: list[str]
    left_out: Counter[str]


def _kept(batch: Sequence[_Files], keep: Keep) -> Iterator[StoreFolder]:
    if not batch:
        return
    digest = hashlib.sha256("\n".join(f"{files.folder}\0{files.state}" for files in batch).encode()).hexdigest()[:16]
    names = keep(Names(digest, pa.concat_tables(files.table for files in batch)))
    counts = [files.table.num_rows for files in batch]
    for files, count, stop in zip(batch, counts, np.cumsum(counts).tolist(), strict=True):
        yield StoreFolder(files.folder, files.state, names, stop - count, count)


@dataclass(frozen=True)
class Look:
    """Lists folders of a store. is_deep: with all that is below each. keep: keeps their names."""

    root: RemotePath
    suffixes: tuple[str, ...]
    is_deep: bool = False
    keep: Keep = in_memory

    def list_folders(self, folders: Sequence[str]) -> Listed:
        """The files of some folders. Hidden ones are counted, and not looked into."""
        kept, batch, size = list[StoreFolder](), list[_Files](), 0
        inside, left_out = list[str](), Counter[str]()
        for seen in prefetched(self._look, folders, threads=THREADS):
            inside += seen.inside
            left_out += seen.left_out
            batch += seen.files
            size += sum(files.table.num_rows for files in seen.files)
            if size >= FILE_ROWS:
                kept += _kept(batch, self.keep)
                batch, size = [], 0
        kept += _kept(batch, self.keep)
        return Listed(tuple(kept), tuple(inside), left_out)

    def _look(self, folder: str) -> _Seen:
        """One listing."""
        files: dict[str, list[File]] = {}
        inside, left_out, passed = list[str](), Counter[str](), set[str]()
        start, depth = len(self.root.path) + 1, len(folder.split("/")) if folder else 0
        for info in (self.root / folder).infos(below=self.is_deep):
            path = info.path[start:]
            path = f"{folder}/" if path == folder else path  # so S3 tells a folder without a name
            above, _, name = path.rpartition("/")
            if (found := _passed(path, depth)) is not None:
                passed.add(found)
            elif not info.is_file:
                inside += [] if self.is_deep else [path]
            elif name.lower().endswith(self.suffixes):
                files.setdefault(above, []).append((path, info.size, info.mtime_ns))
            else:
                left_out[kind_of(PurePosixPath(name))] += 1
        left_out.update("hidden" if path.rpartition("/")[2] else NAMELESS for path in passed)
        ordered = sorted(files.items(), key=lambda item: parts_of(item[0]))
        return _Seen([_files(above, sorted(own)) for above, own in ordered], inside, left_out)


def _passed(path: str, depth: int) -> str | None:
    """The first file or folder of a path that is hidden or has no name, after so many folders that are not so."""
    parts = path.split("/")
    place = next((place for place in range(depth, len(parts)) if not parts[place] or is_hidden(parts[place])), None)
    return None if place is None else "/".join(parts[: place + 1])


def _files(folder: str, files: Sequence[File]) -> _Files:
    state = hashlib.sha256()
    for file in files:
        state.update(repr(file).encode(errors="surrogatepass"))
    table = pa.table({NAME: Texts(path for path, _, _ in files).column(), SIZE: sizes_of(size for _, size, _ in files)})
    return _Files(folder, state.hexdigest()[:16], table)
