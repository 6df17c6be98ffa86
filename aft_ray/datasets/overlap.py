"""Raw data and the samples made from it lie apart: else `prepare` would read its own output, and replace its input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from aft_ray.datasets.base import raise_faults
from aft_ray.datasets.replacement import unfinished_places
from aft_ray.datasets.sources.hub import local_folder
from aft_ray.datasets.sources.pictures import in_each_folder
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.remote import RemotePath
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.workspace import Workspace

NAMED = 3
"""Places that a refusal names."""
WALKED = ("image_folder", "parquet", "csv", "jsonl", "webdataset", "hub")
"""Sources that read every file of their kind below a folder. The others know the names of their files."""


def check_apart(config: DatasetConfig, workspace: Workspace, files: Iterable[str] | None = None) -> None:
    """Raises InputError if raw data and the workspace's samples overlap, through links too: raw data lies where samples are
    written or made, or a folder that is read whole has the samples inside. files: as `Samples.files`.
    """
    if not workspace.is_local:
        _check_apart_in_store(config, workspace)
        return
    walked = config.source in WALKED
    samples = os.path.realpath(f"{workspace}/samples")
    written = [samples, *map(os.path.realpath, unfinished_places(workspace))]
    found: dict[str, None] = {}
    for place in _places(config, files):
        if any(_is_inside(place, other) for other in found):
            continue  # told with the folder that holds it
        if any(_is_inside(place, own) for own in written) or (
            walked and os.path.isdir(place) and _is_inside(samples, place)
        ):
            found[place] = None
            if len(found) == NAMED:
                break
    raise_faults(
        f"The raw data {place} and {samples}, where 'aft-ray prepare' writes, must lie apart. Move the raw data and set"
        " dataset.path to it, or take another workspace. Nothing was changed."
        for place in found
    )


def _check_apart_in_store(config: DatasetConfig, workspace: Workspace) -> None:
    """The same in an object store, which has no links. A whole folder that is read must not hold the workspace's samples."""
    samples = f"{workspace}/samples"
    raise_faults(
        f"The raw data {place} and {workspace}, where 'aft-ray prepare' writes, must lie apart. Set dataset.path to a place"
        " without the workspace, or take another workspace. Nothing was changed."
        for place in _urls(config)
        if type(place.filesystem) is type(workspace.filesystem)
        and (_is_inside(place.path, samples) or (config.source in WALKED and _is_inside(samples, place.path)))
    )


def _urls(config: DatasetConfig) -> Iterator[RemotePath]:
    """URLs of the folders that samples come from; of a glob, the folder that it starts from."""
    for location in filter(None, (config.path, config.columns.image_root)):
        place = place_at(location)
        if isinstance(place, RemotePath):
            fixed = takewhile(lambda part: not glob.has_magic(part), place.parts)
            yield RemotePath(place.root, "/".join(fixed))


def _is_inside(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _places(config: DatasetConfig, files: Iterable[str] | None) -> Iterator[str]:
    """Real paths of the files and folders that the samples come from."""
    for root in _roots(config):
        yield os.path.realpath(root)
        if files is None and root.is_dir():
            yield from map(os.path.realpath, _links(root))
    yield from in_each_folder(files or ()).values()


def _roots(config: DatasetConfig) -> Iterator[Path]:
    place: AnyPath | None = None
    if config.path is not None:
        place = place_at(config.path)
    elif config.source == "hub":
        place = local_folder(config, config.repo or "")
    if isinstance(place, Path):
        yield from [place] if place.exists() else map(Path, glob.glob(str(place), recursive=True))


def _links(root: Path) -> Iterator[str]:
    """Links at any depth below a folder."""
    waiting = [os.fspath(root)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield entry.path
                elif entry.is_dir():
                    waiting.append(entry.path)
