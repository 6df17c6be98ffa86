"""A folder of images with one sub-folder per class, at any depth below it; or one such folder per split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from aft_ray.datasets.base import Listing, raise_faults
from aft_ray.datasets.items import UNKNOWN, Coded, Items, Texts, sizes_of, splits_of
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.sources.files import OTHER_SPLITS, raise_missing_splits
from aft_ray.datasets.sources.folder_splits import NAMED, Parts, shared_classes, splits_of_folders
from aft_ray.datasets.sources.pictures import SUFFIXES, picture_sizes, read_picture
from aft_ray.datasets.sources.splits import named_split, split_names
from aft_ray.datasets.sources.walk import Found, existing_folder, find_below
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath
from aft_ray.recipe.sections import DatasetConfig

OUTSIDE = "outside the folders of classes"
"""In a listing's `left_out`, pictures of no class."""


def list_image_folder(config: DatasetConfig) -> Listing:
    """Images below `path`: the first folder is the class, the path below `path` the sample id.

    Where every first folder has the name of a split (train, val, test, ..., in any case), that is the split and the second
    folder the class. Links to folders are followed.
    Raises as `find_image_folder` does.
    """
    found, folders = find_image_folder(config)
    of_picture = folders.read[folders.of_picture]
    names = Texts(name for name, is_read in zip(found.names, of_picture, strict=True) if is_read).column()
    own = folders.of_picture[of_picture]
    references, places = pa.table({"name": names}), Places(found.root)
    known = found.sizes and [size for size, is_read in zip(found.sizes, of_picture, strict=True) if is_read]
    uri = Lookup(places.uri, references)
    return Listing(
        modality="image",
        classes=folders.classes,
        items=Items(
            names,
            Coded(tuple(range(len(folders.classes))), folders.labels[own]),
            sizes_of(known or picture_sizes(map(uri, range(len(names))))),
            folders.splits[own].astype(np.int8),
        ),
        read=Lookup(places.read, references),
        uri=uri,
        left_out=found.left_out + folders.left_out,
        notes=folders.notes,
    )


@dataclass(frozen=True)
class Places:
    """Where pictures lie whose names are below a folder."""

    root: AnyPath

    def uri(self, references: pa.Table) -> Callable[[int], str]:
        names, root = references.column("name"), self.root
        if isinstance(root, Path):
            start = os.path.join(root, "")
            return lambda index: start + names[index].as_py()
        return lambda index: str(root / names[index].as_py())

    def read(self, references: pa.Table) -> Callable[[int], bytes]:
        uri = self.uri(references)
        return lambda index: read_picture(uri(index))


@dataclass(frozen=True)
class Folders:
    """The folders that hold pictures. of_picture: the number of each picture's. read: whether its pictures are samples.

    labels, splits: of each folder; a split is its place in SPLITS, or UNKNOWN. left_out: pictures that are none.
    """

    classes: tuple[str, ...]
    of_picture: np.ndarray
    read: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    left_out: Counter[str]
    notes: tuple[str, ...]


def find_image_folder(config: DatasetConfig) -> tuple[Found, Folders]:
    """The pictures below `path`, and what their folders mean.

    Raises FileNotFoundError if `path` is no directory, InputError if there are not at least two classes with images, not
    the same ones in every split, or the first folders are neither all splits nor all classes.
    """
    root = existing_folder(config.path or "", "set dataset.path to one that has a folder per class.")
    found = find_below(root, SUFFIXES)
    numbers: dict[str, int] = {}
    own_folders = (name.rpartition("/")[0] for name in found.names)
    of_picture = np.fromiter((numbers.setdefault(folder, len(numbers)) for folder in own_folders), np.int32)
    parts: list[Parts] = [
        (*folder.split("/"), "") if folder else ("",) for folder in numbers
    ]  # as of a picture in each
    own = _splits(config, [part for part in parts if len(part) > 1], root)
    depth = 2 if own else 1
    inside = np.array([len(part) > depth for part in parts], bool)
    read = inside & np.array([not own or part[0] in own for part in parts], bool)
    kept = [part for part, is_read in zip(parts, read, strict=True) if is_read]
    splits = [own.get(part[0]) for part in kept]
    raise_missing_splits(config, {split for split in splits if split}, root)
    labels = [part[depth - 1] for part in kept]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        inner = [part for part in kept if len(part) > depth + 1]
        hint = (
            f" If its folders are the classes, set dataset.path to {root.joinpath(*inner[0][:depth])}." if inner else ""
        )
        raise InputError(
            f"{root} must have at least two folders with images ({', '.join(SUFFIXES)}), one per class,"
            f" found {len(classes)}.{hint}"
        )
    _check_splits(splits, labels, root)
    counts = np.bincount(of_picture, minlength=len(parts))
    return found, Folders(
        classes,
        of_picture,
        read,
        _filled(read, [classes.index(label) for label in labels]),
        _filled(read, splits_of(splits)),
        Counter({OUTSIDE: int(counts[~inside].sum()), OTHER_SPLITS: int(counts[inside & ~read].sum())}),
        () if own else _notes(classes, [part for part in parts if len(part) > 1]),
    )


def _filled(where: np.ndarray, values: Sequence[int] | np.ndarray) -> np.ndarray:
    """The values at the places where `where` is true, UNKNOWN at the others."""
    found = np.full(len(where), UNKNOWN, np.int32)
    found[where] = values
    return found


def _notes(classes: Sequence[str], parts: Sequence[Parts]) -> tuple[str, ...]:
    """A line where the folders of all classes have the same folders inside, which may be the classes."""
    shared = shared_classes(parts)
    if len(shared) < 2:
        return ()
    inside = f"each with the folders {', '.join(shared[:NAMED])}{', ...' if len(shared) > NAMED else ''}"
    return (
        f"The classes are {', '.join(classes[:NAMED])}{', ...' if len(classes) > NAMED else ''}, {inside} inside. If these"
        " are the classes, name the splits with dataset.splits.",
    )


def _splits(config: DatasetConfig, parts: Sequence[Parts], root: AnyPath) -> Mapping[str, str]:
    """The first folders that are splits, as the recipe says or as they show; none if they are classes."""
    names = split_names(config)
    if not config.splits:
        return splits_of_folders(parts, names, root)
    return {folder: names[own] for folder in {part[0] for part in parts} if (own := named_split(folder, names))}


def _check_splits(splits: list[str | None], labels: list[str], root: AnyPath) -> None:
    """Raises InputError, one line per split, naming the classes that it has not while another has."""
    found: dict[str, set[str]] = {}
    for split, label in zip(splits, labels, strict=True):
        found.setdefault(split or "", set()).add(label)
    every = set().union(*found.values())
    raise_faults(
        f"{root}: split {split} has no class {', '.join(sorted(every - own)[:5])}, another split has."
        for split, own in found.items()
        if every - own
    )
