"""Model files behind a URL: copied to this machine's disk, where the libraries that load them expect files.

A copy is made once for each state that the files have there, and stays in the user's cache, `$XDG_CACHE_HOME/aft-ray`. Copies
of killed commands are deleted by the next copy, a day after their last byte.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.places import reached
from aft_ray.recipe.remote import RemotePath

UNFINISHED = ".unfinished-"
STALE_AFTER_S = 24 * 3600.0


def local_copy(location: str) -> Path:
    """The copy of the file or folder at a URL.

    Raises FileNotFoundError if there is none, InputError if its store cannot be reached.
    """
    place = reached(location, f"weights {location}")
    assert isinstance(place, RemotePath), "it is a URL"
    is_file = place.is_file()
    files = [place] if is_file else place.files_below()
    if not files:
        raise FileNotFoundError(f"{location} does not exist.")
    folder = _cache() / fingerprint([[str(place), *place.state()]])
    if not folder.exists():
        _copy(files, place.parent if is_file else place, folder)
    return folder / place.name if is_file else folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aft-ray"


def _copy(files: list[RemotePath], root: RemotePath, folder: Path) -> None:
    """A folder with the files, which is there when it is whole: several processes may copy at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _delete_left_overs(folder.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder.parent))
    try:
        for file in files:
            target = unfinished / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 4 << 20)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _delete_left_overs(cache: Path) -> None:
    for unfinished in cache.glob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):  # its process has finished it, or another deletes it
            written = max(path.stat().st_mtime for path in (unfinished, *unfinished.rglob("*")))
            if time.time() - written > STALE_AFTER_S:
                shutil.rmtree(unfinished, ignore_errors=True)
