"""Whether a workspace can be used at all: asked once, in a few seconds, before a command imports or starts anything large."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.store.workspace import Workspace

WITHIN_S = 10.0
"""Google's client would go on asking for a quarter of an hour."""


def reached(location: str, *, to_write: bool) -> Workspace:
    """The workspace at a path or URL.

    Raises InputError if it cannot be a directory, may not be read or, with `to_write`, written, or does not answer.
    """
    found: list[Workspace | Exception] = []

    def ask() -> None:
        try:
            place = Workspace.at(location)
            if not place.is_local:
                place.has("samples")
            found.append(place)
        except Exception as error:
            found.append(error)

    if "://" in location:
        asking = threading.Thread(target=ask, daemon=True)  # nothing can stop it
        asking.start()
        asking.join(WITHIN_S)
    else:
        ask()
    if not found:
        raise InputError(f"workspace {location} does not answer within {WITHIN_S:g} s. {_way_out(location)}")
    (answer,) = found
    if isinstance(answer, ObjectStoreError):
        reason = " ".join(str(answer).split()).rstrip(".")
        raise InputError(f"workspace {location} cannot be reached: {reason}. {_way_out(location)}") from answer
    if isinstance(answer, Exception):
        raise answer
    if answer.is_local:
        _check_directory(Path(answer.path), to_write=to_write)
    return answer


def _check_directory(path: Path, *, to_write: bool) -> None:
    """A directory that does not exist yet is made in the nearest one above it, which must allow that."""
    there = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    where = f"workspace {path}" if there == path else f"workspace {path}: {there}"
    if not there.is_dir():
        raise InputError(f"{where} is a file. Name a directory, or move that away.")
    needed = os.R_OK | os.X_OK | (os.W_OK if to_write else 0)
    if not os.access(there, needed):
        use = "written" if to_write else "read"
        raise InputError(f"{where} may not be {use} by this user (Permission denied). Name another directory.")


def _way_out(location: str) -> str:
    scheme = location.partition("://")[0]
    return f"Look whether this machine reaches {scheme}://, has credentials for it, and the name is right."
