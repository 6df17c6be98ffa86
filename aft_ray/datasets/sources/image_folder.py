"""A folder of images with one sub-folder per class, at any depth below it; or one such folder per split."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from aft_ray.datasets.base import Item, Listing, raise_faults
from aft_ray.datasets.sources.pictures import SUFFIXES, find_pictures
from aft_ray.datasets.sources.splits import named_split, split_names
from aft_ray.datasets.sources.tables import raise_missing_splits
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig

Parts = tuple[str, ...]


def list_image_folder(config: DatasetConfig) -> Listing:
    """Images below `path`: the first folder is the class, the path below `path` the sample id.

    Where every first folder has the name of a split (train, val, test, ..., in any case), that is the split and the second
    folder the class. Links to folders are followed.
    Raises FileNotFoundError if `path` is no directory, InputError if there are not at least two classes with images, not
    the same ones in every split, or the first folders are neither all splits nor all classes.
    """
    root = Path(config.path or "").expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"the folder {root} does not exist; set dataset.path to one that has a folder per class."
        )
    found = find_pictures(root)
    files = [file for file in found.files if file.parent != root]
    names = split_names(config)
    parts = {file: file.relative_to(root).parts for file in files}
    has_splits = bool(config.splits) or _are_splits(list(parts.values()), names, root)
    if has_splits:
        files = [file for file in files if named_split(parts[file][0], names) and len(parts[file]) > 2]
        raise_missing_splits(config, {names[named_split(parts[file][0], names) or ""] for file in files}, root)
    splits = [names[named_split(parts[file][0], names) or ""] if has_splits else None for file in files]
    labels = [parts[file][1 if has_splits else 0] for file in files]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise InputError(
            f"{root} must have at least two folders with images ({', '.join(SUFFIXES)}), one per class,"
            f" found {len(classes)}."
        )
    _check_splits(splits, labels, root)
    number = {name: index for index, name in enumerate(classes)}
    items = tuple(
        Item("/".join(parts[file]), number[label], _size(file), split)
        for file, label, split in zip(files, labels, splits, strict=True)
    )
    return Listing(
        modality="image",
        classes=classes,
        items=items,
        read=lambda index: files[index].read_bytes(),
        uri=lambda index: str(files[index]),
        left_out=found.left_out,
    )


def _size(file: Path) -> int | None:
    """None where there is nothing, as behind a broken link: reading it tells."""
    try:
        return os.stat(file).st_size
    except OSError:
        return None


def _are_splits(parts: Sequence[Parts], names: Mapping[str, str], root: Path) -> bool:
    """Whether the first folders are splits.

    Raises InputError if two are called as splits are, one of them train, but others are not, or pictures lie outside the
    folders of classes: a student would learn to tell the train folder from the test folder.
    """
    folders = sorted({part[0] for part in parts})
    flat = {part[0] for part in parts if len(part) == 2}  # with pictures that lie in a first folder itself
    splits = {folder for folder in folders if named_split(folder, names)}
    train = [folder for folder in sorted(splits) if names[named_split(folder, names) or ""] == "train"]
    if not train:
        return False
    if splits == set(folders) and not flat:
        return True
    if len(splits) == 1 and len(folders) > 1:
        return False  # a class called train, among buses
    others = [folder for folder in folders if folder not in splits]
    faults = []
    if others:
        faults.append(f"{', '.join(others[:5])} {'is' if len(others) == 1 else 'are'} no split")
    if outside := sorted(splits & flat):
        faults.append(f"{', '.join(outside)} has pictures outside folders of classes")
    raise InputError(
        f"{root}: folder {train[0]} looks like a split, but {', and '.join(faults)}. Set dataset.path to"
        f" {root / train[0]} to split that, or name the splits to read with dataset.splits; each needs a folder per class."
    )


def _check_splits(splits: list[str | None], labels: list[str], root: Path) -> None:
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
