"""New samples replace old ones: a kill anywhere leaves the old or the new, whole.

On a disk the new samples are made in a hidden folder beside the old ones, and the two change places in one step. An object
store cannot rename: there they get a directory of their own below samples/, which one write of samples/current.json makes
valid. Of the old samples only files that aft_ray wrote are deleted; others are kept and named.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs

from aft_ray.datasets.base import raise_faults
from aft_ray.recipe.printable import tell
from aft_ray.store.exchange import exchange
from aft_ray.store.files import Directory
from aft_ray.store.own_files import delete_own_files, own_files
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import CURRENT, Workspace, is_set, split_directory


def check_folders(workspace: Workspace) -> None:
    """Raises InputError if a file or a broken link lies where `prepare` needs a folder, or somebody's data where it keeps
    unfinished samples.
    """
    if not workspace.is_local:
        return
    samples, unfinished = f"{workspace}/samples", unfinished_places(workspace)
    places = [str(workspace), samples, *(f"{samples}/{split}" for split in SPLITS), *map(str, unfinished)]
    raise_faults(
        f"{place} is no folder but a file or a broken link. Move it away and run again."
        for place in places
        if os.path.lexists(place) and not os.path.isdir(place)
    )
    raise_faults(
        f"{place} holds {foreign}, which aft-ray did not write; 'aft-ray prepare' needs this name for unfinished samples."
        " Move that away and run again. Nothing was changed."
        for place in unfinished
        if (foreign := _first_file(place)) and not _has_own_files(place)
    )


def unfinished_places(workspace: Workspace) -> tuple[Path, Path]:
    """Where new samples are made, and where replaced ones lie for a moment, beside the samples of a local workspace."""
    staging = _staging(workspace)
    return staging, _aside(staging)


@contextmanager
def replacing(workspace: Workspace) -> Iterator[Directory]:
    """A place for new samples, which replace the workspace's when the context ends without an error.

    Inside a lease on "samples" only: it deletes the files that killed commands have left.
    """
    clean(workspace)
    if workspace.is_local:
        new = Directory(workspace.filesystem, str(_staging(workspace)))
    else:
        new = workspace / "samples" / f"set-{uuid.uuid4().hex[:8]}"
    try:
        yield new
        if workspace.is_local:
            _swap(Path(new.path), _place(workspace))
        else:
            (workspace / "samples").write(CURRENT, json.dumps({"directory": new.path.rpartition("/")[2]}).encode())
    finally:
        clean(workspace)


def clean(workspace: Workspace) -> None:
    """Deletes samples of ours that are not valid: new ones that were never finished, old ones that were replaced."""
    if not workspace.is_local:
        samples, valid = workspace / "samples", workspace.samples_place().path
        sets = [samples / name for name in samples.names() if is_set(name)]
        for place in [samples, *sets]:
            if place.path != valid:
                _delete_own(place)
        return
    check_folders(workspace)
    (staging, aside), old = unfinished_places(workspace), _place(workspace)
    if aside.exists() and not old.exists():  # killed between the two renames of `_swap`
        aside.rename(old)
    for folder in (staging, aside):
        if folder.exists():
            _delete_own(Directory(workspace.filesystem, str(folder)))
            _keep_foreign(folder, old)


def _place(workspace: Workspace) -> Path:
    """Where the samples lie; `samples` may be a link to another disk."""
    return Path(os.path.realpath(f"{workspace}/samples"))


def _staging(workspace: Workspace) -> Path:
    place = _place(workspace)
    return place.with_name(f".{place.name}-new")


def _aside(staging: Path) -> Path:
    return staging.with_name(f"{staging.name}-old")


def _swap(new: Path, old: Path) -> None:
    if not old.exists():
        new.rename(old)
    elif not exchange(new, old):
        old.rename(_aside(new))
        new.rename(old)


def _delete_own(place: Directory) -> None:
    for split in SPLITS:
        delete_own_files(split_directory(place, split))


def _keep_foreign(folder: Path, old: Path) -> None:
    """Removes the empty folders of a place where our own files are deleted. Keeps and names the rest."""
    for place, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(place):
            os.rmdir(place)
    if folder.exists():
        kept = old.with_name(f"{old.name}-before-{uuid.uuid4().hex[:8]}")
        first = _first_file(folder)
        folder.rename(kept)
        tell(f"{old} held {first}, which aft-ray did not write: it is kept in {kept}.")


def _first_file(folder: Path) -> Path | None:
    """A file or link at any depth below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return next((path.relative_to(folder) for path in files), None)


def _has_own_files(folder: Path) -> bool:
    """Whether a command that was killed left the folder."""
    place = Directory(pafs.LocalFileSystem(), str(folder))
    return any(own_files(split_directory(place, split)) for split in SPLITS)
