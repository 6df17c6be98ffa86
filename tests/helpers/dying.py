"""A filesystem like an object store's, of a process that is killed at a chosen change."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from fsspec.implementations.local import LocalFileSystem

from aft_ray.store.files import Directory


class Killed(BaseException):
    """From the moment of the kill on, nothing can be changed any more."""


class Dying(pafs.FSSpecHandler):
    """changes: how many are made before the kill."""

    def __init__(self, changes: int) -> None:
        super().__init__(LocalFileSystem(auto_mkdir=True))
        self.changes = changes

    def _change(self) -> None:
        if not self.changes:
            raise Killed
        self.changes -= 1

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        self._change()
        return super().open_output_stream(path, metadata)

    def move(self, src: str, dest: str) -> None:
        self._change()
        super().move(src, dest)

    def delete_file(self, path: str) -> None:
        self._change()
        super().delete_file(path)

    def delete_dir(self, path: str) -> None:
        self._change()
        super().delete_dir(path)


def dying(path: object, changes: int) -> Directory:
    return Directory(pafs.PyFileSystem(Dying(changes)), str(path))
