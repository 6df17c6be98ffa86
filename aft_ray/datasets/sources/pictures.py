"""Files of pictures: their suffixes, how one is read, and where the paths of a table may lead."""

from __future__ import annotations

import os
import stat
from pathlib import Path

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
