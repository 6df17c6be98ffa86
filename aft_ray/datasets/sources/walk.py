"""Lists a user's folder, on a disk or in a store: which files are read, which are hidden, and which are left out and told."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NoReturn

from aft_ray.datasets.base import raise_faults
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.remote import RemotePath


@dataclass(frozen=True)
class Found:
    """names: paths below `root`, in the order of their parts, of all files with one of the suffixes. sizes: their bytes where
    the listing told. left_out: how many others there are, by their suffix, as `hidden` or as `broken link`.
    """

    root: AnyPath
    names: list[str]
    left_out: Counter[str]
    sizes: list[int | None] | None = None

    @property
    def files(self) -> list[AnyPath]:
        if not isinstance(self.root, RemotePath):
            return [Path(f"{self.root}/{name}") for name in self.names]
        places = (self.root / name for name in self.names)
        return [RemotePath(place.root, place.key, size) for place, size in zip(places, self.sizes or (), strict=True)]


def find_below(root: AnyPath, suffixes: Sequence[str]) -> Found:
    """Files at any depth below `root`, through links to folders. A link back to a folder above it ends there.

    Raises InputError if a folder cannot be read, or can be reached in two ways: its files would be there twice.
    """
    return _find_in_store(root, suffixes) if isinstance(root, RemotePath) else _find_on_disk(root, suffixes)


def _find_in_store(root: RemotePath, suffixes: Sequence[str]) -> Found:
    """A store has no folders to walk through: all names below are listed, and each hidden folder is left out once."""
    names: list[str] = []
    sizes: list[int | None] = []
    left_out: Counter[str] = Counter()
    hidden: set[tuple[str, ...]] = set()
    for file in root.files_below():
        path = file.relative_to(root)
        depth = next((depth for depth, part in enumerate(path.parts, 1) if is_hidden(part)), None)
        if depth is not None:
            hidden.add(path.parts[:depth])
        elif file.name.lower().endswith(tuple(suffixes)):
            names.append(path.as_posix())
            sizes.append(file.known_size)
        else:
            left_out[kind_of(file)] += 1
    left_out["hidden"] = len(hidden)
    return Found(root, names, +left_out, sizes)


def _find_on_disk(root: Path, suffixes: Sequence[str]) -> Found:
    left_out: Counter[str] = Counter()
    found = [below + name for below, names in walked(root, suffixes, left_out) for name in names]
    return Found(root, sorted(found, key=parts_of), +left_out)


def count_below(root: Path, suffixes: Sequence[str]) -> tuple[dict[str, int], Counter[str]]:
    """As `find_below`, how many files each folder has that has one, by its path below `root`, and how many are left out."""
    left_out: Counter[str] = Counter()
    of_folder = ((below, len(names)) for below, names in walked(root, suffixes, left_out))
    return {below.removesuffix("/"): count for below, count in of_folder if count}, +left_out


def walked(root: Path, suffixes: Sequence[str], left_out: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder, as what its files' paths below `root` begin with, in the order of their parts; and the names of its files with
    one of the suffixes. Adds to `left_out`, and raises as `find_below` does at the end.
    """
    wanted, start = tuple(suffixes), len(os.path.join(root, ""))
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
        own = [name for name in names if is_wanted(name, wanted)]
        if len(own) < len(names):
            left_out.update(_kind(Path(folder, name)) for name in names if not is_wanted(name, wanted))
        yield os.path.join(folder, "")[start:], own
    raise_faults(faults)


def is_wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    return not is_hidden(name) and name.lower().endswith(suffixes)


def parts_of(name: str) -> str:
    """Sorts as the list of a path's parts does: no part holds the character that is the lowest."""
    return name.replace("/", "\0")


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
