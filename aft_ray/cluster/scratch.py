"""Temporary directories of this machine that go with their process, however it ends.

A killed process leaves its directory; the next one that asks for a directory deletes it. A lock shows that a directory is in
use: the system takes it back when the process ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aft_ray.cluster.place import delete_unused, locked
from aft_ray.recipe.own_folder import make_own_folder

GRACE_S = 60.0
"""A directory that is younger may belong to a process that has not locked it yet."""


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty directory for the context, below one of this user's. Where somebody else has taken that name, the next one after
    a kill finds nothing to delete."""
    place = Path(tempfile.gettempdir()) / f"aft-scratch-{os.getuid()}"
    if not make_own_folder(place):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    delete_unused(place, GRACE_S)
    own = Path(tempfile.mkdtemp(prefix="", dir=place))
    try:
        with locked(own):
            (own / "content").mkdir()
            yield own / "content"
    finally:
        shutil.rmtree(own, ignore_errors=True)
