"""Directories on any filesystem that pyarrow knows, whose files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.fs as pafs

from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.json_files import parsed_json, sealed
from aft_ray.recipe.model import NAME

STALE_AFTER_S = 3600.0
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)
"""The name of a file that `Directory.write` has not finished."""
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors of a place that holds something else than we write there."""


@dataclass(frozen=True)
class Directory:
    """A directory on any filesystem that pyarrow knows, written atomically: a reader sees a whole file or none."""

    filesystem: pafs.FileSystem
    path: str

    def __truediv__(self, name: str) -> Directory:
        return Directory(self.filesystem, f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file directly inside, by name; 0 for a directory. Empty if this directory does not exist."""
        return {info.base_name: info.size or 0 for info in self.infos()}

    def infos(self) -> list[pafs.FileInfo]:
        """Facts of each file and directory directly inside; empty if this directory does not exist."""
        with self._asked("read"):
            return self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))

    def names(self) -> list[str]:
        """Names of the files and directories directly inside, sorted; empty if the directory does not exist."""
        return sorted(self.sizes())

    def folders(self) -> list[str]:
        """Names of the directories directly inside, sorted. Names that no recipe can give are left out: not ours."""
        infos = [info for info in self.infos() if info.type == pafs.FileType.Directory]
        return sorted(info.base_name for info in infos if NAME.fullmatch(info.base_name))

    def has(self, name: str) -> bool:
        with self._asked("read", name):
            return self.filesystem.get_file_info(f"{self.path}/{name}").type != pafs.FileType.NotFound

    def size(self, name: str) -> int:
        """Bytes of a file; 0 if it is not there."""
        with self._asked("read", name):
            return self.filesystem.get_file_info(f"{self.path}/{name}").size or 0

    def read(self, name: str) -> bytes:
        """The content of a file. Raises InputError for a pipe or a device, which could be waited for without end."""
        self._check_is_file(name)
        place = f"{self.path}/{name}"
        with self._asked("read", name), self.filesystem.open_input_stream(place, compression=None) as stream:
            return stream.read()

    def read_json(self, name: str, shape: Any, way_out: str) -> Any:
        """A JSON file of ours as plain values of the type `shape`, such as a TypedDict.

        Raises InputError, one line per fault, that names the file and the `way_out`, a sentence.
        """
        return parsed_json(self.read(name), shape, f"{self}/{name}", way_out)

    def write_json(self, name: str, facts: Mapping[str, Any]) -> None:
        """Writes an object with a digest, so that `read_json` finds any change."""
        self.write(name, sealed(json.dumps(dict(facts), indent=1)))

    def buffer(self, name: str) -> pa.Buffer:
        """The content of a file: mapped into memory where the disk is local, else read whole."""
        if self.is_local:
            self._check_is_file(name)
            with self._asked("read", name), pa.memory_map(f"{self.path}/{name}") as file:
                return file.read_buffer()
        return pa.py_buffer(self.read(name))

    def write(self, name: str, content: bytes | pa.Buffer) -> None:
        """On local disk: a temporary file, synced, then renamed. On an object store: one upload, visible when whole."""
        if self.is_local:
            with self._asked("written", name):
                self._write(Path(self.path) / name, content)
        else:
            place = f"{self.path}/{name}"
            with self._asked("written", name), self.filesystem.open_output_stream(place, compression=None) as stream:
                stream.write(content)

    def _write(self, target: Path, content: bytes | pa.Buffer) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _check_is_file(self, name: str) -> None:
        """An object store holds nothing but files and needs no question. Another process may delete the file at any time."""
        path = Path(self.path, name)
        is_other = False
        with self._asked("read", name), suppress(FileNotFoundError):
            is_other = self.is_local and not stat.S_ISREG(path.stat().st_mode)
        if is_other:
            raise InputError(f"{path} is no file. Move it away, then run the command that writes it again.")

    def delete_file(self, name: str) -> None:
        with self._asked("written", name):
            self.filesystem.delete_file(f"{self.path}/{name}")

    def delete(self) -> None:
        with self._asked("written"):
            if self.filesystem.get_file_info(self.path).type == pafs.FileType.Directory:
                self.filesystem.delete_dir(self.path)

    def delete_left_overs(self, below: bool = False) -> None:
        """Removes the temporary files that killed processes left an hour ago or earlier; `below`: in all directories below.

        Only regular files that `write` has named are removed, on local disk: an object store has none.
        """
        if not self.is_local:
            return
        for folder, _, names in os.walk(self.path):
            for path in (Path(folder, name) for name in names if TEMPORARY.fullmatch(name)):
                with suppress(OSError):  # another process, or another user's
                    if path.is_file() and not path.is_symlink() and time.time() - path.stat().st_mtime > STALE_AFTER_S:
                        path.unlink()
            if not below:
                return

    @contextmanager
    def _asked(self, done: Literal["read", "written"], name: str = "") -> Iterator[None]:
        """Raises InputError that names the file if the user's place is at fault, not the disk.

        Names an object store's errors: pyarrow raises them as it raises a damaged Parquet file's, as a bare OSError.
        """
        try:
            yield
        except OSError as error:
            if error.errno is None and not self.is_local:
                raise ObjectStoreError(str(error)) from error
            place, reason = f"{self.path}/{name}".rstrip("/"), os.strerror(error.errno or 0)
            if error.errno in IN_THE_WAY:
                way_out = "Move it away, then run the command that writes it again."
                raise InputError(f"{place} cannot be {done}: {reason}. {way_out}") from error
            if error.errno in (errno.EACCES, errno.EPERM) and done == "read":
                raise InputError(f"{place} cannot be read: {reason}. Change its permissions.") from error
            raise
