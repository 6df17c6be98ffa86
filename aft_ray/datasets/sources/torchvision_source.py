"""torchvision's data set classes, from files that are there already."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

from aft_ray.datasets.base import Item, Listing, raise_faults
from aft_ray.datasets.sources.pictures import read_picture
from aft_ray.datasets.sources.walk import existing_folder
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import is_url
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.schema import UNLABELED

FILES = ("_image_files", "_images")
"""Attributes in which torchvision's classes keep the paths of pictures."""
LABELS = ("targets", "_labels", "labels")
SPLITS = {"train": ("train", "trainval"), "validation": ("val", "valid", "validation"), "test": ("test",)}
"""Names that torchvision's classes give each split; the first that exists is read."""


def list_torchvision(config: DatasetConfig) -> Listing:
    """The pictures of the torchvision class `dataset_class` below `path`, as the bytes of their files or as PNG.

    Raises InputError if there is no such class, FileNotFoundError if its data is not there.
    """
    kind = check_torchvision(config)
    parts = _open_splits(kind, config)
    classes = _classes([part for _, _, part in parts])
    places = [(part, index) for _, _, part in parts for index in range(len(part))]
    items = []
    for ours, own, part in parts:
        labels = next((getattr(part, name) for name in LABELS if hasattr(part, name)), None)
        for index in range(len(part)):
            label = labels[index] if labels is not None else part[index][1]
            items.append(Item(f"{own}/{index + 1}", int(label) if label is not None else UNLABELED, None, ours))
    raise_faults(
        f"{item.sample_id}: label {item.label} is none of {len(classes)} classes."
        for item in items
        if not UNLABELED <= item.label < len(classes)  # type: ignore[operator]
    )
    return Listing("image", classes, tuple(items), lambda index: _encoded(*places[index]))


def check_torchvision(config: DatasetConfig) -> Any:
    """The class. Raises InputError if torchvision has none of that name, FileNotFoundError if `path` is no folder."""
    from torchvision import datasets

    kind = getattr(datasets, config.dataset_class or "", None)
    if not inspect.isclass(kind) or not issubclass(kind, datasets.VisionDataset):
        raise InputError(f"torchvision.datasets has no class '{config.dataset_class}' of pictures.")
    if is_url(config.path or ""):
        raise InputError(
            f"torchvision reads files of this machine, not {config.path}. Copy them to a disk and set dataset.path to that."
        )
    existing_folder(config.path or "", _hint(config))
    return kind


def _hint(config: DatasetConfig) -> str:
    arguments = f"{config.path!r}, download=True"
    return f"get the data with torchvision.datasets.{config.dataset_class}({arguments}), or set dataset.path to it."


def _open_splits(kind: Any, config: DatasetConfig) -> list[tuple[str | None, str, Any]]:
    """For each split our name, the class's own name and the data."""
    takes = inspect.signature(kind).parameters
    if not {"train", "split", "image_set"} & set(takes):
        return [(None, "all", _open(kind, config, {}))]
    found = []
    for ours, usual in SPLITS.items():
        for own in config.splits.get(ours, usual) if config.splits else usual:  # type: ignore[call-overload]
            if "train" in takes and own not in ("train", "test"):
                continue
            key = "train" if "train" in takes else "split" if "split" in takes else "image_set"
            if config.splits and ours not in config.splits:
                continue
            try:
                part = _open(kind, config, {key: own == "train" if key == "train" else own})
            except ValueError as error:  # it has no split of that name
                if config.splits:
                    raise InputError(f"dataset.splits.{ours}: {' '.join(str(error).split())}") from error
                continue
            found.append((ours, own, part))
            if not config.splits:
                break
    return found  # type: ignore[return-value]


def _open(kind: Any, config: DatasetConfig, arguments: dict[str, Any]) -> Any:
    root = str(Path(config.path or "").expanduser())
    try:
        return kind(root, **arguments)
    except (RuntimeError, FileNotFoundError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise FileNotFoundError(f"{config.dataset_class} is not in {root} ({reason}). {_hint(config)}") from error


def _classes(parts: list[Any]) -> tuple[str, ...]:
    names = next((part.classes for part in parts if getattr(part, "classes", None)), None)
    if names is not None:
        return tuple(map(str, names))
    labels = (getattr(part, name) for part in parts for name in LABELS if hasattr(part, name))
    highest = max(int(label) for found in labels for label in found)
    return tuple(map(str, range(highest + 1)))


def _encoded(part: Any, index: int) -> bytes:
    """A picture's file as it is; a PNG if the class keeps its pictures decoded."""
    files = next((getattr(part, name) for name in FILES if hasattr(part, name)), None)
    if files is not None:
        return read_picture(files[index])
    encoded = io.BytesIO()
    part[index][0].save(encoded, format="PNG")
    return encoded.getvalue()
