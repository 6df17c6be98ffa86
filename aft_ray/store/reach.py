"""Whether a workspace can be used at all: asked once, in a few seconds, before a command imports or starts anything large."""

from __future__ import annotations

import os
from pathlib import Path

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import answered, place_at
from aft_ray.recipe.remote import RemotePath
from aft_ray.store.workspace import Workspace


def reached(location: str, *, to_write: bool) -> Workspace:
    """The workspace at a path or URL.

    Raises InputError if it cannot be a directory, may not be read or, with `to_write`, written, or does not answer.
    """
    if "://" not in location:
        answer = Workspace.at(location)
    else:
        answer = answered(lambda: _answering(location), f"workspace {location}", location)
    if answer.is_local:
        _check_directory(Path(answer.path), to_write=to_write)
    return answer


def _answering(location: str) -> Workspace:
    place = place_at(location)
    if isinstance(place, RemotePath):
        place.check_answers()
    return Workspace.at(location)


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
