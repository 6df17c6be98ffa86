"""Folders of one user in the machine's temporary directory, where any other user may have taken the name first."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def make_own_folder(place: Path) -> bool:
    """Makes the folder where there is none. False if a link, a file or another user's folder has its name: nothing behind it
    may be read, and nothing there is ours to delete."""
    with suppress(FileExistsError):
        place.mkdir(mode=0o700, parents=True)
    found = place.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
