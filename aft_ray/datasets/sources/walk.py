"""Lists a user's folder, on a disk or in a store: which files are read, which are hidden, and which are left out and told."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NoReturn

from aft_ray.datasets.base import raise_faults
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.remote import RemotePath


@dataclass(frozen=True)
class Found:
    """files: all below a folder with one of the suffixes, sorted. left_out: how many others there are, by their suffix,
    as `hidden` or as `broken link`.
    """

    files: Sequence[AnyPath]
    left_out: Counter[str]


def find_below(root: AnyPath, suffixes: Sequence[str]) -> Found:
    """Files at any depth below `root`, through links to folders. A link back to a folder above it ends there.

    Raises InputError if a folder cannot be read, or can be reached in two ways: its files would be there twice.
    """
    return _find_in_store(root, suffixes) if isinstance(root, RemotePath) else _find_on_disk(root, suffixes)


def _find_in_store(root: RemotePath, suffixes: Sequence[str]) -> Found:
    """A store has no folders to walk through: all names below are listed, and each hidden folder is left out once."""
    files: list[RemotePath] = []
    left_out: Counter[str] = Counter()
    hidden: set[tuple[str, ...]] = set()
    for file in root.files_below():
        parts = file.relative_to(root).parts
        depth = next((depth for depth, part in enumerate(parts, 1) if is_hidden(part)), None)
        if depth is not None:
            hidden.add(parts[:depth])
        elif file.name.lower().endswith(tuple(suffixes)):
            files.append(file)
        else:
            left_out[kind_of(file)] += 1
    left_out["hidden"] = len(hidden)
    return Found(files, +left_out)


def _find_on_disk(root: Path, suffixes: Sequence[str]) -> Found:
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    first: dict[str, str] = {}
    faults = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_refuse):
        reached = first.setdefault(os.path.realpath(folder), folder)
        if reached != folder:
            folders.clear()
            if not folder.startswith(os.path.join(reached, "")):
                faults.append(f"{reached} and {folder} are one folder. Remove the link.")
            continue
        left_out["hidden"] += sum(map(is_hidden, folders))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in names:
            path = Path(folder, name)
            if not is_hidden(name) and name.lower().endswith(tuple(suffixes)):
                files.append(path)
            else:
                left_out[_kind(path)] += 1
    raise_faults(faults)
    return Found(sorted(files), +left_out)


def existing_folder(path: str, way_out: str) -> AnyPath:
    """The real path of a folder, or its URL. Raises FileNotFoundError if it does not exist, InputError if it is no folder."""
    place = place_at(path)
    if not isinstance(place, RemotePath):
        place = Path(os.path.realpath(place))
    if not (place.exists() if isinstance(place, RemotePath) else os.path.lexists(place)):
        raise FileNotFoundError(f"the folder {place} does not exist; {way_out}")
    if not place.is_dir():
        raise InputError(f"{place} is a file, not a folder; unpack it if it is an archive, and {way_out}")
    return place


def is_hidden(name: str) -> bool:
    """Whether a computer put the file or folder there for itself."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _kind(path: Path) -> str:
    if is_hidden(path.name):
        return "hidden"
    if path.is_symlink() and not os.path.exists(path):
        return "broken link"
    return kind_of(path)


def kind_of(path: PurePath | RemotePath) -> str:
    """The kind of a file that is left out, by its name."""
    return path.suffix.lower() or "no suffix"


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error
