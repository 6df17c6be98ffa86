"""Arrays that the processes of one machine share: made by the first that asks, mapped into memory by all.

They are files under the machine's temporary directory, in a directory per user, named by a hash of their inputs. So runs
that want the same find the same, and others never meet. Who makes them or uses them holds a lock, which the system takes
back when the process ends, however it ends: nothing has to be cleaned up by hand after a crash. The last user deletes
them and the locks' files. The files of a killed process serve its restart; a day later the next writer deletes them.

Where a link, a file or another user's directory has the name, and where the disk has no room, every process holds its own arrays.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from aft_ray.recipe.own_folder import make_own_folder

logger = logging.getLogger(__name__)

STALE_AFTER_S = 24 * 3600.0


class ArrayCache:
    """`with ArrayCache() as cache: arrays = cache.get(key, make)`; the arrays are valid inside."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path(tempfile.gettempdir()) / f"aft-ray-{os.getuid()}"
        self.keys: list[str] = []
        self.used = ExitStack()

    def __enter__(self) -> ArrayCache:
        self.is_own = make_own_folder(self.directory)
        if not self.is_own:
            self._warn("is a link, a file or another user's")
        return self

    def get(self, key: str, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of `key`, read-only. One process calls `make`, the others wait for it."""
        if not self.is_own:
            return dict(make())
        place = self.directory / key
        with self._locked(key, "making", fcntl.LOCK_EX):
            if not place.is_dir():
                self._delete_left_overs(key)
                arrays = dict(make())
                if shutil.disk_usage(self.directory).free < 1.1 * sum(array.nbytes for array in arrays.values()):
                    self._warn("has too little room")
                    return arrays
                self._write(place, arrays)
            self.used.enter_context(self._locked(key, "using", fcntl.LOCK_SH))
            self.keys.append(key)
            return {path.stem: np.load(path, mmap_mode="r") for path in sorted(place.glob("*.npy"))}

    def _warn(self, why: str) -> None:
        logger.warning("%s %s: every worker holds its own copy.", self.directory, why)

    def _write(self, place: Path, arrays: Mapping[str, np.ndarray]) -> None:
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=self.directory))
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        os.replace(temporary, place)

    def _delete_left_overs(self, key: str) -> None:
        """Half-made files of this key, and files of other keys that nobody has used for a day."""
        for path in self.directory.glob(f".{key}.*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.directory.iterdir():
            other = path.name.lstrip(".").partition(".")[0]
            with suppress(FileNotFoundError):  # another process deletes them too
                if other != key and time.time() - path.stat().st_mtime > STALE_AFTER_S:
                    self._delete_if_unused(other, path)

    def _delete_if_unused(self, key: str, path: Path) -> None:
        at_once = fcntl.LOCK_EX | fcntl.LOCK_NB
        with suppress(BlockingIOError), self._locked(key, "making", at_once), self._locked(key, "using", at_once):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            for what in ("making", "using"):
                (self.directory / f"{key}.{what}").unlink(missing_ok=True)

    @contextmanager
    def _locked(self, key: str, what: str, mode: int) -> Iterator[None]:
        """Its file is deleted by the last user only, who holds the lock: who then gets it must begin again."""
        file = self.directory / f"{key}.{what}"
        while True:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, mode)
                if _is_at(lock, file):
                    yield
                    return
            finally:
                os.close(lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.used.close()
        for key in self.keys:
            self._delete_if_unused(key, self.directory / key)


def _is_at(opened: int, file: Path) -> bool:
    """Whether an opened file still lies at its path."""
    try:
        return os.path.samestat(os.fstat(opened), file.stat())
    except FileNotFoundError:
        return False
