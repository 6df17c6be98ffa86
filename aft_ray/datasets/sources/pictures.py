"""Files of pictures: their suffixes, how one is read, and where the paths of a table may lead."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from aft_ray.recipe.errors import InputError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
)
"""Names of pictures that Pillow reads. The one list for folders, tars and predictions."""
MOST_BYTES = 1 << 30
"""Of one encoded picture. A sparse file can claim more than the memory holds."""


def picture_size(path: str | Path) -> int | None:
    """Bytes of a picture's file; None where there is no file to read, and `read_picture` says why."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a path with a NUL character is a ValueError
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def read_picture(path: str | Path) -> bytes:
    """The file as it is. Raises OSError if there is none, ValueError if it is a pipe or the like, or far too large."""
    check_picture(path)
    return Path(path).read_bytes()


def check_picture(path: str | Path) -> None:
    """Raises as `read_picture` does, without opening the file."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no plain file")
    if found.st_size > MOST_BYTES:
        raise ValueError(f"it has {found.st_size:,} bytes, more than {MOST_BYTES:,}")


def read_named_picture(path: str) -> bytes:
    """As `read_picture`, for the place that `picture_path` made of a table's path: without a file it tells the rule."""
    try:
        return read_picture(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file {path!r}. Paths in a table start from the table's folder, or from dataset.columns.image_root"
        ) from None


def check_image_root(folder: Path) -> None:
    """Raises InputError if the folder that a table's paths start from is none."""
    if not folder.is_dir():
        raise InputError(
            f"dataset.columns.image_root: there is no folder {folder}. Name the one that has the pictures; a relative path"
            " starts from the directory in which aft-ray runs."
        )


def picture_path(folder: Path, path: str) -> str:
    """The place of the picture `path` of a table, which starts from `folder`. Raises ValueError if it leads outside.

    A table that came from elsewhere must not make a sample of `/etc/passwd` or `../../keys/id.png`. Links below the
    folder are the user's own and are followed.
    """
    place, root = os.path.normpath(folder / path), os.path.normpath(folder)
    if not _is_below(place, root) and not _is_below(os.path.realpath(place), os.path.realpath(root)):
        raise ValueError(f"the path {path!r} leads outside the folder {root}")
    return place


def _is_below(place: str, root: str) -> bool:
    return place.startswith(os.path.join(root, ""))
