"""Files of pictures: their suffixes, the walk through a folder that finds them, and where a table's paths may lead."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
)
"""Names of pictures that Pillow reads. The one list for folders, tars and predictions."""


@dataclass(frozen=True)
class Found:
    """files: pictures below a folder, sorted. left_out: how many other files there are, by suffix or `hidden`."""

    files: list[Path]
    left_out: Counter[str]


def find_pictures(root: Path) -> Found:
    """The pictures at any depth below `root`, through links to folders, each folder once.

    Files and folders that a computer put there for itself are hidden: names with a leading dot, `__MACOSX`.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        left_out["hidden"] += sum(map(is_hidden, folders))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in names:
            path = Path(folder, name)
            if is_hidden(name):
                left_out["hidden"] += 1
            elif path.suffix.lower() in SUFFIXES:
                files.append(path)
            else:
                left_out[path.suffix.lower() or "no suffix"] += 1
    return Found(sorted(files), +left_out)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


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
    return place.startswith(root.rstrip(os.sep) + os.sep)
