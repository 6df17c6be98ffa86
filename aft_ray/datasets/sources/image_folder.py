"""A folder of images with one sub-folder per class, at any depth below it; or one such folder per split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from aft_ray.datasets.base import Listing, raise_faults
from aft_ray.datasets.items import splits_of
from aft_ray.datasets.parts import listing_of, scanned
from aft_ray.datasets.sources.files import OTHER_SPLITS, raise_missing_splits
from aft_ray.datasets.sources.folder_splits import NAMED, Parts, shared_classes, splits_of_folders
from aft_ray.datasets.sources.picture_parts import Folder, Folders, Pictures, PicturesInStore, PicturesOnDisk
from aft_ray.datasets.sources.pictures import SUFFIXES
from aft_ray.datasets.sources.splits import named_split, split_names
from aft_ray.datasets.sources.store_folders import ALONE, Lister, list_below
from aft_ray.datasets.sources.walk import count_below, existing_folder
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath
from aft_ray.recipe.sections import DatasetConfig

OUTSIDE = "outside the folders of classes"
"""In a listing's `left_out`, pictures of no class."""


def list_image_folder(config: DatasetConfig) -> Listing:
    """Images below `path`: the first folder is the class, the path below `path` the sample id.

    Where every first folder has the name of a split (train, val, test, ..., in any case), that is the split and the second
    folder the class. Links to folders are followed.
    Raises as `image_folder_in_parts` does.
    """
    plan = image_folder_in_parts(config)
    return listing_of(plan, scanned(plan))


def image_folder_in_parts(config: DatasetConfig, lister: Lister = ALONE) -> Pictures:
    """The parts of `list_image_folder`. A store is asked once for all names, by `lister`.

    Raises FileNotFoundError if `path` is no directory, InputError if there are not at least two classes with images, not
    the same ones in every split, or the first folders are neither all splits nor all classes.
    """
    root = _root(config)
    if isinstance(root, Path):
        return PicturesOnDisk.of(root, _folders(config, root, *count_below(root, SUFFIXES)))
    found = list_below(root, SUFFIXES, lister)
    counts = {folder.name: folder.count for folder in found.folders}
    return PicturesInStore.of(root, found, _folders(config, root, counts, found.left_out))


def check_image_folder(config: DatasetConfig) -> None:
    """Raises as `image_folder_in_parts` does. Of a store's folder it only sees whether it is there: to list it may take hours."""
    root = _root(config)
    if isinstance(root, Path):
        _folders(config, root, *count_below(root, SUFFIXES))


def _root(config: DatasetConfig) -> AnyPath:
    return existing_folder(config.path or "", "set dataset.path to one that has a folder per class.")


def _folders(config: DatasetConfig, root: AnyPath, counts: Mapping[str, int], left_out: Counter[str]) -> Folders:
    """counts: pictures of each folder. left_out: other files."""
    parts: list[Parts] = [(*folder.split("/"), "") if folder else ("",) for folder in counts]  # as of a picture in each
    own = _splits(config, [part for part in parts if len(part) > 1], root)
    depth = 2 if own else 1
    inside = [len(part) > depth for part in parts]
    read = [is_in and (not own or part[0] in own) for is_in, part in zip(inside, parts, strict=True)]
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
    of_class = {name: number for number, name in enumerate(classes)}
    names = [name for name, is_read in zip(counts, read, strict=True) if is_read]
    numbers = splits_of(splits).tolist()
    outside = sum(count for count, is_in in zip(counts.values(), inside, strict=True) if not is_in)
    others = sum(counts.values()) - outside - sum(counts[name] for name in names)
    return Folders(
        classes,
        tuple(
            Folder(name, of_class[label], split, counts[name])
            for name, label, split in zip(names, labels, numbers, strict=True)
        ),
        left_out + Counter({OUTSIDE: outside, OTHER_SPLITS: others}),
        () if own else _notes(classes, [part for part in parts if len(part) > 1]),
    )


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
