"""Whether the first folders below a root are splits or classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from aft_ray.datasets.sources.splits import example_of_splits, look_alikes, named_split
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath

Parts = tuple[str, ...]
"""A picture's path below the root, folder by folder."""
NAMED = 5
"""Folders that a refusal names."""


def splits_of_folders(parts: Sequence[Parts], names: Mapping[str, str], root: AnyPath) -> dict[str, str]:
    """The first folders that are splits, and the split that each is; none if the first folders are classes.

    Raises InputError if they look like splits but cannot be read as such: only some have a split's name or all a longer one
    (`train_set`), pictures of a split lie outside the folders of classes, or none is train. Taken for classes, they would
    teach a student to tell the train folder from the test folder.
    """
    folders = sorted({part[0] for part in parts})
    splits = {folder: names[own] for folder in folders if (own := named_split(folder, names))}
    flat = sorted({part[0] for part in parts if len(part) == 2})
    if folders and len(splits) == len(folders) and not flat:
        if "train" not in splits.values() and len(folders) > 1:
            raise InputError(
                f"{root}: the folders {', '.join(folders)} look like splits, but none is train. Say in dataset.splits which"
                " are train, validation and test, or set dataset.path to one of them."
            )
        return splits
    alike = {**look_alikes(folders), **splits}
    if _are_classes(alike, folders, parts):
        return {}
    _refuse(root, alike, [folder for folder in folders if folder not in alike], [f for f in flat if f in splits])


def shared_classes(parts: Sequence[Parts]) -> list[str]:
    """The second folders that every first folder has: where there are several, the first ones may be splits."""
    inner: dict[str, set[str]] = {}
    for part in parts:
        inner.setdefault(part[0], set()).update(part[1:2] if len(part) > 2 else ())
    return sorted(set.intersection(*inner.values())) if len(inner) > 1 else []


def _are_classes(alike: Mapping[str, str], folders: Sequence[str], parts: Sequence[Parts]) -> bool:
    """Whether the first folders are classes although `alike` look like splits, as trains among buses do.

    They are not if several splits are among them and one is train, or all are; if all have the same classes inside; or if a
    train folder alone has folders, at least two.
    """
    kinds = set(alike.values())
    if not kinds:
        return True
    if len(kinds) > 1 and ("train" in kinds or len(alike) == len(folders)):
        return False
    if "train" in kinds and len(folders) == 1:
        return False
    if len(shared_classes(parts)) > 1:
        return False
    trains = {folder for folder, split in alike.items() if split == "train"}
    inner = {part[1] for part in parts if part[0] in trains and len(part) > 2}
    others_are_flat = all(len(part) == 2 for part in parts if part[0] not in trains)
    return not (len(inner) > 1 and others_are_flat)


def _refuse(root: AnyPath, alike: Mapping[str, str], others: Sequence[str], outside: Sequence[str]) -> NoReturn:
    names = [*alike]
    faults = []
    if others:
        faults.append(f"but {', '.join(others[:NAMED])} {'is' if len(others) == 1 else 'are'} no split")
    if outside:
        faults.append(
            f"but {', '.join(outside)} {'has' if len(outside) == 1 else 'have'} pictures outside folders of classes"
        )
    if not faults:
        faults.append("but are not called train, validation or test")
    looks = (
        f"folder {names[0]} looks like a split" if len(names) == 1 else f"{', '.join(names[:NAMED])} look like splits"
    )
    train = next((folder for folder, split in alike.items() if split == "train"), names[0])
    raise InputError(
        f"{root}: {looks}, {', and '.join(faults)}. Name the splits to read with dataset.splits, such as"
        f" {example_of_splits(alike)}; each needs a folder per class. Or set dataset.path to {root / train} to split that."
        " Rename a folder that is a class."
    )
