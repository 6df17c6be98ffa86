"""Files of pictures: their suffixes, how one is read, and where the paths of a table may lead."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from functools import lru_cache

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.remote import RemotePath

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
)
"""Names of pictures that Pillow reads. The one list for folders, tars and predictions."""
MOST_BYTES = 1 << 30
"""Of one encoded picture. A sparse file can claim more than the memory holds."""


def picture_size(path: str | AnyPath) -> int | None:
    """Bytes of a picture's file; None where there is no file to read, and `read_picture` says why."""
    if isinstance(path, RemotePath):
        return path.known_size
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a path with a NUL character is a ValueError
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def picture_sizes(paths: Iterable[str]) -> Iterator[int | None]:
    """As `picture_size`, of many paths or URLs. A folder in a store is listed once, instead of a request for each file."""

    @lru_cache(maxsize=1024)
    def listed(folder: RemotePath) -> dict[RemotePath, int | None]:
        return {file: file.known_size for file in folder.iterdir()}

    for path in paths:
        place = place_at(path) if "://" in path else None
        yield listed(place.parent).get(place) if isinstance(place, RemotePath) else picture_size(path)


def read_picture(path: str | AnyPath) -> bytes:
    """The file as it is. Raises OSError if there is none, ValueError if it is a pipe or the like, or far too large."""
    place = place_at(path) if isinstance(path, str) and "://" in path else path
    if isinstance(place, RemotePath):
        return place.read_bytes(_check_size)
    check_picture(place)
    with open(place, "rb") as stream:
        return stream.read()


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raises as `read_picture` does, without opening the file of this machine."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no plain file")
    _check_size(found.st_size)


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")


def read_named_picture(path: str) -> bytes:
    """As `read_picture`, for the place that `picture_path` made of a table's path: without a file it tells the rule."""
    try:
        return read_picture(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file {path!r}. Paths in a table start from the table's folder, or from dataset.columns.image_root"
        ) from None


def in_each_folder(paths: Iterable[str]) -> dict[str, str]:
    """The folders of local files, links followed, each with the first of them. URLs are passed over."""
    folders: set[str] = set()
    found: dict[str, str] = {}
    for path in paths:
        folder, _, name = path.rpartition(os.sep)
        if not path or "://" in path:
            continue
        if os.path.islink(path):
            real = os.path.realpath(path)
            found.setdefault(os.path.dirname(real), real)
        elif folder not in folders:
            folders.add(folder)
            real = os.path.realpath(folder or os.sep)
            found.setdefault(real, os.path.join(real, name))
    return found


def check_image_root(folder: AnyPath) -> None:
    """Raises InputError if the folder that a table's paths start from is none."""
    if not folder.is_dir():
        raise InputError(
            f"dataset.columns.image_root: there is no folder {folder}. Name the one that has the pictures; a relative path"
            " starts from the directory in which aft-ray runs."
        )


def picture_path(folder: AnyPath, path: str) -> str:
    """The path or URL of the picture `path` of a table, which starts from `folder`. Raises ValueError if it leads outside.

    A table that came from elsewhere must not make a sample of `/etc/passwd` or `../../keys/id.png`. Links below the
    folder are the user's own and are followed.
    """
    if isinstance(folder, RemotePath):
        return str(_remote_picture(folder, path))
    place, root = os.path.normpath(folder / path), os.path.normpath(folder)
    if not _is_below(place, root) and not _is_below(os.path.realpath(place), os.path.realpath(root)):
        raise ValueError(f"the path {path!r} leads outside the folder {root}")
    return place


def _remote_picture(folder: RemotePath, path: str) -> RemotePath:
    """A store has no links to follow."""
    given = place_at(path) if "://" in path else folder / path
    if not isinstance(given, RemotePath) or path.startswith("/"):
        raise ValueError(f"the path {path!r} leads outside the folder {folder}")
    place = RemotePath(folder.root, given.resolve().key)
    same_bucket = given.root.partition("?")[0] == folder.root.partition("?")[0]
    if not same_bucket or not _is_below(f"/{place.key}", f"/{folder.key}"):
        raise ValueError(f"the path {path!r} leads outside the folder {folder}")
    return place


def _is_below(place: str, root: str) -> bool:
    return place.startswith(os.path.join(root, ""))
