"""The files that travel with a job, in a zip file: a directory without the files that its ignore files name, and this package.

Ray's own packing is not used: it has no public interface that says how large an upload would be.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from aft_ray.recipe.errors import InputError

LARGEST_UPLOAD = 100 << 20
"""Bytes that Ray's job server takes in one request."""
EXCLUDES = (".?*", "venv", "__pycache__", "*.egg-info", "*.parquet", "*.log")
IGNORE_FILES = (".gitignore", ".rayignore")

MODULE = re.compile(r"(\w+)(?:\.py|/__init__\.py)")
"""A module at the root of an upload."""

Rule = tuple[Path, GitIgnoreSpec]
"""Patterns of files to leave out, and the directory below which they hold."""


def travelling(directory: Path, excludes: Sequence[str] = ()) -> Mapping[str, Path]:
    """The files below `directory` by their path in it, less files that match EXCLUDES, `excludes` or an ignore file.

    excludes: patterns as in .gitignore.
    """
    rules = [(directory, GitIgnoreSpec.from_lines([*EXCLUDES, *excludes]))]
    return {path.relative_to(directory).as_posix(): path for path in _files(directory, rules, ())}


def _files(directory: Path, rules: Sequence[Rule], above: Sequence[Path]) -> Iterator[Path]:
    """above: the real paths of the directories on the way to `directory`."""
    way = (*above, directory.resolve())
    found = (directory / name for name in IGNORE_FILES)
    rules = [*rules, *((directory, GitIgnoreSpec.from_lines(_lines(path))) for path in found if path.is_file())]
    for path in sorted(directory.iterdir()):
        is_directory = path.is_dir()
        if any(spec.match_file(path.relative_to(root).as_posix() + "/" * is_directory) for root, spec in rules):
            continue
        leads_round = is_directory and any(place.is_relative_to(path.resolve()) for place in way)
        if is_directory and not leads_round:
            yield from _files(path, rules, way)
        elif path.is_file():
            yield path


def _lines(path: Path) -> list[str]:
    """The lines of an ignore file; undecodable bytes as in the names of files that have them."""
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def check_hides_nothing(names: Iterable[str], origin: Path) -> None:
    """Raises InputError for modules that have the name of one of Python's: every process of a job looks in the upload first."""
    hiding = [name for name in names if (module := MODULE.fullmatch(name)) and module[1] in sys.stdlib_module_names]
    if hiding:
        raise InputError(
            [
                f"{origin / name} would hide Python's own {name} in every process of the job. Rename it, or name it in .gitignore"
                " or .rayignore."
                for name in hiding
            ]
        )


def write_zip(upload: Path, files: Mapping[str, Path], origin: Path) -> None:
    """Writes the files to `upload` under their names. origin: the directory that an error names.

    Raises InputError, before it writes, if the upload would be larger than LARGEST_UPLOAD. Nothing is compressed.
    """
    if (size := sum(path.stat().st_size for path in files.values())) > LARGEST_UPLOAD:
        raise InputError(
            f"The upload of {origin} would take {size >> 20} MiB, and Ray accepts {LARGEST_UPLOAD >> 20}. Submit from a"
            " directory that has only the recipe and code, or name the rest in .gitignore or .rayignore."
        )
    with zipfile.ZipFile(upload, "w", strict_timestamps=False) as archive:
        for name, path in files.items():
            archive.write(path, name)
