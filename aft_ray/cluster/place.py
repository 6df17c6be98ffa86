"""The directory of a local Ray cluster: its logs, its sockets and the objects that did not fit into memory.

Ray itself never deletes one. A command that ends well deletes its own. The directory of a command that failed or was killed
stays for a day, for its logs; later the next command deletes it. A lock shows that a directory is in use: the system takes it
back when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aft_ray.recipe.own_folder import make_own_folder
from aft_ray.recipe.printable import tell

STALE_AFTER_S = 24 * 3600.0
LOCK = "in-use"
LONGEST = 103 - len("/12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1")
"""Bytes of a path below which Ray's sockets may lie: no system takes less than 103 for a socket's."""
SHORT = Path("/tmp")
"""Where the files lie if the temporary directory has a long path, as batch systems give each job one."""


@contextmanager
def cluster_place() -> Iterator[str | None]:
    """A new directory for `ray.init`; None, for Ray's own choice, where the user has set RAY_TMPDIR, or a link, a file or another
    user's directory has the name."""
    place = _short_place()
    if "RAY_TMPDIR" in os.environ or not make_own_folder(place):
        yield None
        return
    if place.parent != Path(tempfile.gettempdir()):
        tell(f"Ray's files go to {place}: {tempfile.gettempdir()} is too long a path for its sockets")
    delete_unused(place, STALE_AFTER_S)
    own = Path(tempfile.mkdtemp(prefix="", dir=place))
    with locked(own):
        yield str(own)
    shutil.rmtree(own, ignore_errors=True)  # a process of Ray may still be ending: the rest goes a day later


def _short_place() -> Path:
    name = f"aft-clusters-{os.getuid()}"
    place = Path(tempfile.gettempdir()) / name
    return place if len(os.fsencode(place)) <= LONGEST else SHORT / name


def delete_unused(place: Path, after_s: float) -> None:
    """Deletes the directories below `place` that no process uses and that nobody has changed for some seconds. Without a lock
    inside, a directory is none of ours."""
    for folder in place.iterdir():
        with suppress(OSError):  # another command is using or deleting it
            if (folder / LOCK).exists() and time.time() - folder.stat().st_mtime > after_s:
                with locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError if another process holds the lock."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
