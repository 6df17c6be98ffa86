"""A folder of images with one sub-folder per class, at any depth below it; or one such folder per split."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from aft_ray.datasets.base import Item, Listing, raise_faults
from aft_ray.datasets.sources.splits import split_names
from aft_ray.datasets.sources.tables import raise_missing_splits
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def list_image_folder(config: DatasetConfig) -> Listing:
    """Images below `path`: the first folder is the class, the path below `path` the sample id. Where every first folder
    is called as a split is (train, val, test, ...), that is the split and the second folder the class.

    Raises FileNotFoundError if `path` is no directory, InputError if there are not at least two classes with images, or
    not the same ones in every split.
    """
    root = Path(config.path or "").expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"the folder {root} does not exist; set dataset.path to one that has a folder per class."
        )
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.parent != root)
    names = split_names(config)
    parts = {file: file.relative_to(root).parts for file in files}
    has_splits = bool(config.splits) or _are_splits(parts.values(), names)
    if has_splits:
        files = [file for file in files if parts[file][0] in names and len(parts[file]) > 2]
        raise_missing_splits(config, {names[parts[file][0]] for file in files}, root)
    splits = [names[parts[file][0]] if has_splits else None for file in files]
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
        Item("/".join(parts[file]), number[label], file.stat().st_size, split)
        for file, label, split in zip(files, labels, splits, strict=True)
    )
    return Listing("image", classes, items, lambda index: files[index].read_bytes(), lambda index: str(files[index]))


def _are_splits(parts: Collection[tuple[str, ...]], names: Mapping[str, str]) -> bool:
    """Whether the first folders are splits: all have the name of one, one is train, and classes lie in each."""
    folders = {part[0] for part in parts}
    return folders <= set(names) and "train" in map(names.get, folders) and all(len(part) > 2 for part in parts)


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
