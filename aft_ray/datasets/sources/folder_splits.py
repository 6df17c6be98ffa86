"""Whether the first folders below a root are splits or classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from aft_ray.datasets.sources.splits import named_split
from aft_ray.recipe.errors import InputError

Parts = tuple[str, ...]
"""A picture's path below the root, folder by folder."""


def splits_of_folders(parts: Sequence[Parts], names: Mapping[str, str], root: Path) -> dict[str, str]:
    """The first folders that are splits, and the split that each is; none if the first folders are classes.

    Raises InputError if some look like splits and others do not, pictures of a split lie outside the folders of classes, or
    there is no train split: a student would learn to tell the train folder from the test folder.
    """
    folders = sorted({part[0] for part in parts})
    splits = {folder: names[own] for folder in folders if (own := named_split(folder, names))}
    flat = sorted({part[0] for part in parts if len(part) == 2})
    trains = [folder for folder, split in splits.items() if split == "train"]
    if folders and len(splits) == len(folders) and not flat:
        if not trains and len(folders) > 1:
            raise InputError(
                f"{root}: the folders {', '.join(folders)} look like splits, but none is train. Say in dataset.splits which"
                " are train, validation and test, or set dataset.path to one of them."
            )
        return splits
    if not trains or _is_class(trains[0], splits, folders, parts):
        return {}
    _refuse(root, trains[0], [folder for folder in folders if folder not in splits], [f for f in flat if f in splits])


def _is_class(train: str, splits: Collection[str], folders: Sequence[str], parts: Sequence[Parts]) -> bool:
    """Whether the folder `train` is a class among others, such as trains among buses. It is not if it alone has folders, and
    at least two."""
    if len(splits) > 1 or len(folders) == 1:
        return False
    inner = {part[1] for part in parts if part[0] == train and len(part) > 2}
    others_are_flat = all(len(part) == 2 for part in parts if part[0] != train)
    return not (len(inner) > 1 and others_are_flat)


def _refuse(root: Path, train: str, others: Sequence[str], outside: Sequence[str]) -> NoReturn:
    faults = []
    if others:
        faults.append(f"{', '.join(others[:5])} {'is' if len(others) == 1 else 'are'} no split")
    if outside:
        faults.append(
            f"{', '.join(outside)} {'has' if len(outside) == 1 else 'have'} pictures outside folders of classes"
        )
    raise InputError(
        f"{root}: folder {train} looks like a split, but {', and '.join(faults)}. Set dataset.path to {root / train} to"
        " split that, or name the splits to read with dataset.splits; each needs a folder per class."
    )
