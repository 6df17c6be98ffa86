"""A folder of images with one sub-folder per class, at any depth below it."""

from __future__ import annotations

from pathlib import Path

from aft_ray.config import InputError
from aft_ray.datasets.base import Item, Listing

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def list_image_folder(path: str) -> Listing:
    """Images below `path`: the first folder is the class, the path below `path` the sample id.

    Raises FileNotFoundError if `path` is no directory, InputError if there are not at least two classes with images.
    """
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"the folder {root} does not exist; set dataset.path to one that has a folder per class."
        )
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.parent != root)
    ids = [file.relative_to(root).as_posix() for file in files]
    classes = tuple(sorted({sample_id.split("/", 1)[0] for sample_id in ids}))
    if len(classes) < 2:
        raise InputError(
            f"{root} must have at least two folders with images ({', '.join(SUFFIXES)}), one per class,"
            f" found {len(classes)}."
        )
    number = {name: index for index, name in enumerate(classes)}
    items = tuple(Item(sample_id, number[sample_id.split("/", 1)[0]]) for sample_id in ids)
    return Listing("image", classes, items, lambda index: files[index].read_bytes())
