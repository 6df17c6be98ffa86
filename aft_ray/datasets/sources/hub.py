"""Repositories of the Hugging Face hub: a local copy in the hub's own files, the hub's cache, or a stream.

Parquet and Arrow files are read without the hub's library; only a stream needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from aft_ray.datasets.base import raise_faults
from aft_ray.datasets.sources.files import check_look_alikes, find_files, raise_missing_splits
from aft_ray.datasets.sources.json_text import parse_json
from aft_ray.datasets.sources.splits import own_split, split_names
from aft_ray.datasets.sources.tables import SUFFIXES, Row, Table, Tables, open_table
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.sections import DatasetConfig

CONVERTED = "refs/convert/parquet"
"""The branch where the hub keeps a Parquet copy of a repository's data in other forms."""
KINDS = ("parquet", "arrow")
OTHERS = "tables of other splits"
"""In a listing's `left_out`."""


def hub_tables(config: DatasetConfig) -> Tables:
    """The splits of `dataset.repo`, named as the repository names them.

    Raises FileNotFoundError if `path` has no such files, InputError if the hub cannot be reached or has no such data.
    """
    tables, left_out = [], Counter[str]()
    for repo, names in _names_by_repo(config).items():
        folder = local_folder(config, repo)
        found = Tables(stream(repo, config), {}) if folder is None else local_tables(folder, names)
        known = [replace(table, split=names[table.name]) for table in found.tables if table.name in names]
        if not known and not config.splits:
            check_look_alikes([Path(table.name) for table in found.tables], config.path or repo)
            known = found.tables
        tables += known
        left_out.update(found.left_out)
        left_out[OTHERS] += len(found.tables) - len(known)
    raise_missing_splits(config, {table.split for table in tables if table.split}, config.path or config.repo)
    return Tables(tables, +left_out)


def check_hub(config: DatasetConfig) -> list[Table]:
    """As `hub_tables`, but nothing if only a server has the files: a check asks no server."""
    return hub_tables(config).tables if local_folder(config, config.repo or "") else []


def _names_by_repo(config: DatasetConfig) -> dict[str, dict[str, str]]:
    """For each repository, its names of splits -> ours. `OWNER/NAME:SPLIT` is a split of another repository."""
    found: dict[str, dict[str, str]] = {}
    for name, ours in split_names(config).items():
        repo, _, own = name.rpartition(":")
        found.setdefault(repo or config.repo or "", {})[own] = ours
    return found


def local_folder(config: DatasetConfig, repo: str) -> AnyPath | None:
    """Where the repository's files lie: at `dataset.path`, or in the hub's cache; None if only a server has them."""
    place = place_at(config.path) if config.path else _cached(repo, config.revision)
    if place is None:
        return None
    for part in (repo.rpartition("/")[2], config.subset):
        if part and (place / part).is_dir():
            place = place / part
    return place


def _cached(repo: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        place = Path(snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    has_files = any(next(place.rglob(f"*{suffix}"), None) for kind in KINDS for suffix in SUFFIXES[kind])
    return place if has_files else None


def local_tables(folder: AnyPath, names: Mapping[str, str]) -> Tables:
    """Every Parquet file below `folder`, else every Arrow file; the files of one split have one name."""
    for kind in KINDS:
        try:
            found = find_files(str(folder), SUFFIXES[kind])
        except FileNotFoundError:
            continue
        files = _without_caches(found.files) if kind == "arrow" else found.files
        if not files:
            continue
        left_out = found.left_out + Counter({"caches of the hub's library": len(found.files) - len(files)})
        own = {file: own_split(found.name(file), names) for file in files}
        tables = [replace(open_table(file, kind), name=split or file.stem) for file, split in own.items()]
        return Tables(tables, left_out)
    raise FileNotFoundError(
        f"{folder}: no Parquet or Arrow files there; set dataset.path to a copy in the hub's own files."
    )


def _without_caches(files: Sequence[AnyPath]) -> list[AnyPath]:
    """The files that hold the data in folders of `save_to_disk`, where later calls of `map` and `shuffle` leave caches.

    Raises InputError if one that `state.json` lists is not there.
    """
    kept, faults = [], []
    for folder, group in groupby(files, key=lambda file: file.parent):
        listed, found = _data_files(folder), list(group)
        missing = sorted(listed - {file.name for file in found})
        faults += [
            f"{folder}: {name} is not there, though state.json lists it. Copy the folder again." for name in missing
        ]
        kept += [file for file in found if (file.name in listed if listed else not file.name.startswith("cache-"))]
    raise_faults(faults)
    return kept


def _data_files(folder: AnyPath) -> set[str]:
    """The files that `state.json` of a saved split lists; empty without it."""
    state = folder / "state.json"
    if not state.is_file():
        return set()
    try:
        return {str(entry["filename"]) for entry in parse_json(state.read_bytes())["_data_files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{state} is not what save_to_disk writes: it lists no _data_files.") from error


def stream(repo: str, config: DatasetConfig) -> list[Table]:
    """The repository's splits, read from the hub as they are needed."""
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{repo} is read from the hub with the package 'datasets': pip install datasets.") from error
    converted = config.revision == CONVERTED
    try:
        found = datasets.load_dataset(
            repo,
            name=None if converted else config.subset,
            data_dir=config.subset if converted else None,
            revision=config.revision,
            streaming=True,
        )
        return [_streamed(name, split, datasets.Image) for name, split in found.items()]
    except Exception as error:  # errors of the network, the hub and its library have no common base
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(f"{repo} cannot be read from the hub ({reason}). {download_hint(config)}") from error


def download_hint(config: DatasetConfig) -> str:
    """How to get a local copy of every repository that `config` needs."""
    revision = f" --revision {config.revision}" if config.revision else ""
    commands = (f"hf download {repo} --repo-type dataset{revision} --local-dir DIR" for repo in _names_by_repo(config))
    return f"Where there is a network: {' and '.join(commands)}; then set dataset.path to DIR."


def _streamed(name: str, split: Any, image_type: type) -> Table:
    features = split.features or {}
    class_names = {
        column: tuple(names) for column, feature in features.items() if (names := getattr(feature, "names", None))
    }

    def read(columns: Sequence[str]) -> Iterator[Row]:
        rows = split.select_columns(list(columns))
        for column in columns:
            if isinstance(features.get(column), image_type):
                rows = rows.cast_column(column, image_type(decode=False))
        yield from rows

    columns = tuple(split.column_names or features)
    return Table(name, None, columns, read, class_names=class_names, again=False)
