"""Replaces an exported directory by a new one: a kill anywhere leaves the old or the new one, whole.

On a disk the new directory is made beside the old one and the two change places in one step. An old export that holds
anything but the files of its record, unchanged, is kept beside the new one. An object store cannot rename: there each export
has a directory of its own, the older ones stay, and export.json beside them names the valid one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from aft_ray.cluster.scratch import scratch
from aft_ray.recipe.json_files import json_or_none
from aft_ray.recipe.printable import tell
from aft_ray.store.exchange import exchange
from aft_ray.store.files import Directory

RECORD = "lineage.json"
"""A file of every export that lists the others, with their hashes."""
UNFINISHED = re.compile(r"\.export-[0-9a-f]{8}")


class _Valid(TypedDict):
    """export.json."""

    directory: str


def write_record(folder: Path, facts: dict[str, Any]) -> None:
    """Writes RECORD with `facts` and the hashes of all files in `folder`."""
    (folder / RECORD).write_text(json.dumps({**facts, "files": file_hashes(folder)}, indent=1), encoding="utf-8")


def file_hashes(folder: Path) -> dict[str, str]:
    """The hash of every file in an export's folder besides RECORD, by its place in it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / RECORD]
    return {str(path.relative_to(folder)): _sha256(path) for path in paths}


@contextmanager
def staging(target: Directory) -> Iterator[Path]:
    """A local folder to fill for `publish`. One command at a time may be inside: it deletes the leftovers of killed commands."""
    if not target.is_local:
        with scratch() as folder:
            yield folder
        return
    parent = Path(target.path).parent
    for path in parent.glob(".export-*"):
        if UNFINISHED.fullmatch(path.name) and _is_ours(path):
            _delete(path)
    folder = parent / f".export-{_token()}"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps({"files": {}}), encoding="utf-8")  # marks the folder as ours
    try:
        yield folder
    finally:
        _delete(folder)


def export_place(run: Directory) -> Directory | None:
    """Where a run's valid export lies; None without one. Raises InputError if export.json is damaged."""
    if not run.is_local and run.has("export.json"):
        found = run.read_json("export.json", _Valid, "Run 'aft-ray export' again.")
        return run / found["directory"]
    return run / "export" if run.has("export") else None


def publish(folder: Path, target: Directory) -> Directory:
    """Puts a folder from `staging`, with its record, in the place of `target`. Returns where the export lies."""
    return _swap(folder, Path(target.path), target) if target.is_local else _upload(folder, target)


def _swap(folder: Path, old: Path, target: Directory) -> Directory:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    if not old.exists() and not old.is_symlink():
        folder.rename(old)
    elif changed := _not_recorded(old):
        kept = old.with_name(f"export-before-{_token()}")
        old.rename(kept)
        folder.rename(old)
        said = f"{old} held {changed[0]}, which is not as 'aft-ray export' wrote it: the old export is kept as {kept}."
        tell(said)
    elif not exchange(folder, old):
        aside = folder.with_name(f".export-{_token()}")
        old.rename(aside)
        folder.rename(old)
        aside.rename(folder)
    return target  # an old export that is ours lies in `folder` now, which is deleted


def _upload(folder: Path, target: Directory) -> Directory:
    parent, name = Directory(target.filesystem, str(Path(target.path).parent)), f"export-{_token()}"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parent.write(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    parent.write("export.json", json.dumps({"directory": name}).encode())
    return parent / name


def _is_ours(folder: Path) -> bool:
    """Whether a killed export left the folder: it has a record, or nothing yet."""
    return not folder.is_symlink() and folder.is_dir() and ((folder / RECORD).is_file() or not any(folder.iterdir()))


def _delete(folder: Path) -> None:
    """Deletes a folder of ours, its record last: until then it shows whose the folder is."""
    for path in sorted(folder.glob("*")):
        if path.name != RECORD:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _not_recorded(folder: Path) -> list[str]:
    """Files of an export that are not as its record says; all where there is no record."""
    if folder.is_symlink() or not folder.is_dir():
        return [folder.name]
    recorded = recorded_files(folder)
    files = [path for path in sorted(folder.rglob("*")) if not path.is_dir() or path.is_symlink()]
    names = {str(path.relative_to(folder)): path for path in files if path != folder / RECORD}
    return [name for name, path in names.items() if not _is_plain(path) or recorded.get(name) != _sha256(path)]


def _is_plain(path: Path) -> bool:
    """A pipe could be waited for without end."""
    return path.is_file() and not path.is_symlink()


def recorded_files(folder: Path) -> dict[str, str]:
    """The hash of each file of an export, as its record has them; none where the record is missing or damaged."""
    record = folder / RECORD
    found = json_or_none(record.read_bytes()) if record.is_file() else None
    files = found.get("files") if isinstance(found, dict) else None
    return files if isinstance(files, dict) else {}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _token() -> str:
    return uuid.uuid4().hex[:8]
