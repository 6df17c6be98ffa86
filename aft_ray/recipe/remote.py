"""A file or folder behind a URL, with the part of pathlib.Path's interface that readers need. It is only ever read.

`s3://`, `gs://`, `abfss://` and `hf://` are pyarrow's; `fsspec+SCHEME://` is any other filesystem of an installed fsspec
package. Credentials come from the environment.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.secrets import WITHOUT_SECRETS, has_secret

BUFFER_BYTES = 4 << 20
"""Bytes that one request of a stream reads ahead."""
NO_BUCKET = r"(s3|gs|gcs|abfss?|hf)://(/.*|\?.*)?"
OPTION = re.compile(r"[A-Za-z]\w*=[^?]*")
"""A part of a URL's query, between the signs &."""
PLAIN = "/=:,+@!()'"
"""Characters that stand for themselves in a URL that is shown or stored."""


def check_location(location: str) -> None:
    """Raises InputError for a secret, and for a URL with a `?` that begins no options: the name would end there unseen."""
    if has_secret(location):
        raise InputError(f"A place's URL must not hold a secret: {WITHOUT_SECRETS}.")
    _, mark, query = location.partition("?")
    if "://" in location and mark and not all(map(OPTION.fullmatch, query.split("&"))):
        raise InputError(
            f"{location}: '?' begins a URL's options, such as ?region=us-east-1. In a name write it as %3F, which a pattern"
            " takes for any one character."
        )


def parted(location: str) -> tuple[str, str]:
    """The URL of a bucket with its query, and the key in it, as plain text."""
    check_location(location)
    if re.fullmatch(NO_BUCKET, location):
        raise InputError(f"{location} names no bucket. Write s3://BUCKET/PATH or gs://BUCKET/PATH.")
    whole, mark, query = location.partition("?")
    scheme, _, rest = whole.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket or '/'}{mark}{query}", unquote(key).rstrip("/")  # hdfs:///folder has no host


_CONNECTED: dict[str, tuple[Any, str]] = {}


def _connected(root: str) -> tuple[Any, str]:
    """The filesystem of a bucket's URL, and the bucket's path on it; made once a process."""
    import pyarrow.fs as pafs

    if root not in _CONNECTED:
        filesystem, path = pafs.FileSystem.from_uri(root)
        _CONNECTED[root] = filesystem, path.rstrip("/")
    return _CONNECTED[root]


def root_of(filesystem: Any, path: str) -> RemotePath | None:
    """The URL of a path on one of pyarrow's filesystems; None if this process did not open it by a URL."""
    for root, (known, base) in list(_CONNECTED.items()):
        if (known is filesystem or known == filesystem) and path.startswith(f"{base}/"):
            return RemotePath(root, path[len(base) + 1 :])
    return None


@dataclass(frozen=True)
class RemotePath:
    """A file or folder behind a URL. root: the URL of its bucket. key: its path there. known_size: a listed file's bytes."""

    root: str
    key: str
    known_size: int | None = field(default=None, compare=False)

    @property
    def filesystem(self) -> Any:
        return self._store()[0]

    @property
    def path(self) -> str:
        """The path on pyarrow's filesystem."""
        base = self._store()[1]
        return f"{base}/{self.key}" if self.key else base

    def _store(self) -> tuple[Any, str]:
        try:
            return _connected(self.root)
        except (OSError, ValueError, ImportError) as error:  # Arrow's errors of a URL are ValueErrors
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(
                f"{self} cannot be opened: {reason}. Name a directory, or a URL of s3:// or gs://."
            ) from error

    def __str__(self) -> str:
        """The URL, which `place_at` reads back."""
        whole, mark, query = self.root.partition("?")
        return f"{whole.removesuffix('/')}/{quote(self.key, safe=PLAIN)}{mark}{query}"

    def __lt__(self, other: RemotePath) -> bool:
        return (self.root, self.parts) < (other.root, other.parts)

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.root, "/".join(filter(None, (self.key, name.strip("/")))))

    def joinpath(self, *names: str) -> RemotePath:
        return self / "/".join(names)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.key.split("/"))

    @property
    def name(self) -> str:
        return self.parts[-1]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.root, self.key.rpartition("/")[0])

    def relative_to(self, other: object) -> PurePosixPath:
        assert isinstance(other, RemotePath) and other.root == self.root, "both lie in one bucket"
        return PurePosixPath(self.key).relative_to(other.key)

    def is_file(self) -> bool:
        return self.known_size is not None or bool(self._info().is_file)

    def is_dir(self) -> bool:
        return self.known_size is None and self._info().type.name == "Directory"

    def exists(self) -> bool:
        return self.known_size is not None or self._info().type.name != "NotFound"

    def resolve(self) -> RemotePath:
        """Without `..`, which a store takes for a name like others."""
        return RemotePath(self.root, posixpath.normpath(self.key) if self.key else "")

    def check_answers(self) -> None:
        """Raises ObjectStoreError if the store cannot be reached, refuses, or has no such bucket."""
        if not self.exists():
            self.infos()  # asked for a file, S3 does not say that the bucket is missing

    def infos(self, *, below: bool = False) -> list[Any]:
        """pyarrow's facts of the files and folders inside, or at any depth below; empty if the folder does not exist.

        A filesystem of fsspec forgets the listings that it keeps: they grow, and do not show what has changed.
        """
        import pyarrow.fs as pafs

        with self._asked():
            if (handler := getattr(self.filesystem, "handler", None)) is not None:
                handler.fs.invalidate_cache()
            try:
                return list(self.filesystem.get_file_info(pafs.FileSelector(self.path, recursive=below)))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def files_below(self) -> list[RemotePath]:
        """Every file at any depth, sorted, with its size: a request for each thousand, not for each file."""
        start = len(self._store()[1]) + 1
        infos = (info for info in self.infos(below=True) if info.is_file)
        return sorted(RemotePath(self.root, info.path[start:], info.size) for info in infos)

    def iterdir(self) -> Iterator[RemotePath]:
        for info in self.infos():
            child = self / info.base_name
            yield RemotePath(child.root, child.key, info.size) if info.is_file else child

    def state(self) -> list[list[Any]]:
        """Name, size and time of change of the file, or of every file below the folder: differs when they change."""
        infos = [self._info()] if self.is_file() else self.infos(below=True)
        return sorted([info.path, info.size, info.mtime_ns] for info in infos if info.is_file)

    def num_bytes(self) -> int:
        """Raises FileNotFoundError if there is no file."""
        if self.known_size is not None:
            return self.known_size
        info = self._info()
        if not info.is_file:
            raise FileNotFoundError(f"there is no file {self}")
        return int(info.size)

    def native(self) -> Any:
        """A file for pyarrow's readers, which reads any range, and names the store's errors in the midst of it.

        pyarrow's own file raises them as its readers raise a damaged file's: as a bare OSError.
        """
        import pyarrow as pa

        return pa.PythonFile(_Stream(self), mode="r")

    def _open(self) -> Any:
        with self._asked():
            return self.filesystem.open_input_file(self.path)

    def open(self, mode: str = "rb") -> BinaryIO:
        assert mode == "rb", "sources are only read"
        return io.BufferedReader(_Stream(self), BUFFER_BYTES)

    def read_bytes(self, check_size: Callable[[int], object] | None = None) -> bytes:
        """The content. check_size: is given the file's bytes before they are read, and may raise."""
        with self._asked(), self._open() as file:
            if check_size is not None:
                check_size(file.size())
            return bytes(file.read())

    def read_range(self, start: int, size: int) -> bytes:
        """Some bytes of the file in one request: an open file is kept for the next."""
        with self._asked():
            return bytes(_opened(self).read_at(size, start))

    def _info(self) -> Any:
        with self._asked():
            return self.filesystem.get_file_info(self.path)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Names the place in errors; an outage or a refusal, which pyarrow raises as a bare OSError, is an ObjectStoreError."""
        try:
            yield
        except ObjectStoreError:
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(f"there is no file {self}") from error
        except OSError as error:
            raise ObjectStoreError(f"{self}: {' '.join(str(error).split())}") from error


class _Stream(io.RawIOBase):
    """A file behind a URL that names the URL in every error of a read."""

    def __init__(self, place: RemotePath) -> None:
        super().__init__()
        self.place, self.file = place, place._open()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self.place._asked():
            return int(self.file.readinto(buffer))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self.place._asked():
            return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


@lru_cache(maxsize=32)
def _opened(place: RemotePath) -> Any:
    return place._open()
