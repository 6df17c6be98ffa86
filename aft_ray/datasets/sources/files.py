"""The files of a source: which are read, which split each belongs to, and which are left out and told."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path, PurePath

from aft_ray.datasets.base import raise_faults
from aft_ray.datasets.sources.json_text import is_unicode
from aft_ray.datasets.sources.splits import example_of_splits, look_alikes, own_split, split_names
from aft_ray.datasets.sources.walk import find_below, is_hidden
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, below, place_at
from aft_ray.recipe.remote import RemotePath
from aft_ray.recipe.sections import DatasetConfig

NAMED = 3
"""Files that a refusal names."""
OTHER_SPLITS = "of splits that dataset.splits does not name"
"""In a listing's `left_out`, files and rows of splits that the recipe does not ask for."""


@dataclass(frozen=True)
class DataFiles:
    """root: the folder that names are relative to; the file itself where there is one. left_out: as in `walk.Found`."""

    root: AnyPath
    files: Sequence[AnyPath]
    left_out: Counter[str]

    def name(self, file: AnyPath) -> PurePath:
        """A file's path below the root; its own name where it is the root."""
        return Path(file.name) if file == self.root else below(file, self.root)


def find_files(path: str, suffixes: Sequence[str], compressed: Sequence[str] = ()) -> DataFiles:
    """The sorted files of `path`: one file, a folder's at any depth, or a glob's.

    Raises FileNotFoundError, saying where it looked, if there is none; InputError naming files that cannot be read, and
    compressed files (suffixes `compressed`), which are not passed over.
    """
    found = _find(path, (*suffixes, *compressed))
    if not found.files:
        raise FileNotFoundError(f"{path}: no {' or '.join(suffixes)} files there; set dataset.path to where they are.")
    raise_faults(
        f"{file} is no file that can be read: a broken link, a pipe or the like."
        for file in found.files
        if not file.is_file()
    )
    raise_faults(
        f"The name of {str(file)!r} is not Unicode; rename the file."
        for file in found.files
        if not is_unicode(str(file))
    )
    raise_faults(
        f"{file} is compressed. Unpack it."
        for file in found.files
        if compressed and file.name.lower().endswith(tuple(compressed))
    )
    return found


def _find(path: str, suffixes: Sequence[str]) -> DataFiles:
    given = place_at(path)
    if isinstance(given, RemotePath):
        return _find_in_store(given, suffixes)
    place = given.absolute()
    if os.path.isfile(place):
        return DataFiles(place, [place], Counter())
    if os.path.isdir(place):
        inside = find_below(place, suffixes)
        return DataFiles(place, inside.files, inside.left_out)
    root = Path(*takewhile(lambda part: not glob.has_magic(part), place.parts))
    found = map(Path, glob.glob(str(place), recursive=True))
    files = (file for file in found if not file.is_dir() and not any(map(is_hidden, file.relative_to(root).parts)))
    return DataFiles(root, sorted(files), Counter())


def _find_in_store(place: RemotePath, suffixes: Sequence[str]) -> DataFiles:
    if place.is_file():
        return DataFiles(place, [place], Counter())
    if not any(map(glob.has_magic, place.parts)):
        inside = find_below(place, suffixes)
        return DataFiles(place, inside.files, inside.left_out)
    fixed = tuple(takewhile(lambda part: not glob.has_magic(part), place.parts))
    root = RemotePath(place.root, "/".join(fixed))
    found = set(_matching(root, place.parts[len(fixed) :]))
    return DataFiles(root, sorted(found), Counter())


def _matching(folder: RemotePath, patterns: Sequence[str]) -> Iterator[RemotePath]:
    """Files below a folder that a glob's parts name, less hidden ones; `**` is any number of folders, as on a disk."""
    first, *rest = patterns
    if first == "**":
        files = (file for file in folder.files_below() if not any(map(is_hidden, file.relative_to(folder).parts)))
        for file in files:
            own = file.relative_to(folder).parts
            if not rest or any(_fits(own[start:], rest) for start in range(len(own))):
                yield file
        return
    for child in folder.iterdir():
        if not fnmatchcase(child.name, first) or is_hidden(child.name):
            continue
        if rest and child.known_size is None:
            yield from _matching(child, rest)
        elif not rest and child.known_size is not None:
            yield child


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def splits_of_files(found: DataFiles, config: DatasetConfig) -> dict[AnyPath, str | None]:
    """Each file that is read, and our name of its split; None for all where none names one, or a column does.

    Raises InputError if only some name a split, or some look like splits that go by longer names: read as one pool, samples
    of test would be trained on.
    """
    names: Mapping[str, str] = {} if config.columns.split else split_names(config)
    own = {file: None if file == found.root else own_split(found.name(file), names) for file in found.files}
    splits = {file: names[split] if split else None for file, split in own.items()}
    if config.splits and names:
        splits = {file: split for file, split in splits.items() if split}
        raise_missing_splits(config, [split for split in splits.values() if split], found.root)
        return splits
    without = [file.name for file, split in splits.items() if split is None]
    if without and len(without) < len(splits):
        raise InputError(
            f"{', '.join(without[:NAMED])} in {found.root} name no split, other files do. Name one in each, or say in"
            " dataset.splits which are read."
        )
    if without and not config.columns.split:
        check_look_alikes(map(found.name, splits), found.root)
    return splits


def check_look_alikes(files: Collection[PurePath] | map[PurePath], where: object) -> None:
    """Raises InputError if the names of files, or of their folders, look like several splits, train among them."""
    words = dict.fromkeys(part for file in files for part in (*file.parent.parts, file.name.partition(".")[0]))
    alike = look_alikes(words)
    if "train" in alike.values() and len(set(alike.values())) > 1:
        raise InputError(
            f"{where}: {', '.join([*alike][: 2 * NAMED])} look like splits, but do not have the names of splits. Name them"
            f" with dataset.splits, such as {example_of_splits(alike)}, or rename them."
        )


def raise_missing_splits(config: DatasetConfig, found: Collection[str], where: object) -> None:
    raise_faults(
        f"dataset.splits.{split}: {where} has no split called {' or '.join(names)}."
        for split, names in config.splits.items()
        if split not in found
    )
