"""A folder of images with one sub-folder per class, at any depth below it; or one such folder per split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from aft_ray.datasets.base import Item, Listing, raise_faults
from aft_ray.datasets.sources.files import OTHER_SPLITS, raise_missing_splits
from aft_ray.datasets.sources.folder_splits import NAMED, Parts, shared_classes, splits_of_folders
from aft_ray.datasets.sources.pictures import SUFFIXES, picture_size, read_picture
from aft_ray.datasets.sources.splits import named_split, split_names
from aft_ray.datasets.sources.walk import existing_folder, find_below
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, below
from aft_ray.recipe.sections import DatasetConfig

OUTSIDE = "outside the folders of classes"
"""In a listing's `left_out`, pictures of no class."""


def list_image_folder(config: DatasetConfig) -> Listing:
    """Images below `path`: the first folder is the class, the path below `path` the sample id.

    Where every first folder has the name of a split (train, val, test, ..., in any case), that is the split and the second
    folder the class. Links to folders are followed.
    Raises FileNotFoundError if `path` is no directory, InputError if there are not at least two classes with images, not
    the same ones in every split, or the first folders are neither all splits nor all classes.
    """
    root = existing_folder(config.path or "", "set dataset.path to one that has a folder per class.")
    found = find_below(root, SUFFIXES)
    parts = {file: below(file, root).parts for file in found.files}
    own = _splits(config, [part for part in parts.values() if len(part) > 1], root)
    depth = 2 if own else 1
    inside = [file for file in found.files if len(parts[file]) > depth]
    files = [file for file in inside if not own or parts[file][0] in own]
    splits = [own.get(parts[file][0]) for file in files]
    raise_missing_splits(config, {split for split in splits if split}, root)
    labels = [parts[file][depth - 1] for file in files]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        inner = [parts[file] for file in files if len(parts[file]) > depth + 1]
        hint = (
            f" If its folders are the classes, set dataset.path to {root.joinpath(*inner[0][:depth])}." if inner else ""
        )
        raise InputError(
            f"{root} must have at least two folders with images ({', '.join(SUFFIXES)}), one per class,"
            f" found {len(classes)}.{hint}"
        )
    _check_splits(splits, labels, root)
    number = {name: index for index, name in enumerate(classes)}
    left_out = Counter({OUTSIDE: len(found.files) - len(inside), OTHER_SPLITS: len(inside) - len(files)})
    return Listing(
        modality="image",
        classes=classes,
        items=tuple(
            Item("/".join(parts[file]), number[label], picture_size(file), split)
            for file, label, split in zip(files, labels, splits, strict=True)
        ),
        read=lambda index: read_picture(files[index]),
        uri=lambda index: str(files[index]),
        left_out=found.left_out + left_out,
        notes=() if own else _notes(classes, [part for part in parts.values() if len(part) > 1]),
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
