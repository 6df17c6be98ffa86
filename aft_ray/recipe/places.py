"""A local path or a URL, listed and read in one way. Nothing here writes: other people's data stays as it is.

A local place is a `pathlib.Path`, a URL a `RemotePath`; readers do not care which they got.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, TypeAlias, TypeVar

from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.remote import RemotePath, check_location, parted

T = TypeVar("T")
AnyPath: TypeAlias = Path | RemotePath

WITHIN_S = 10.0
"""Seconds that a store has for its first answer: Google's client would go on asking for a quarter of an hour."""


def place_at(location: str) -> AnyPath:
    """The place of a path, which may begin with ~, or of a URL. A URL's store is not asked for anything.

    Raises InputError if a URL holds a secret, names no bucket or has a `?` without options, or there is no such home.
    """
    if "://" not in location:
        try:
            return Path(location).expanduser()
        except RuntimeError as error:  # a home of nobody
            raise InputError(f"{location} cannot be opened: {error}") from error
    if location.startswith("file://"):
        return Path(filesystem_of(location)[1])
    return RemotePath(*parted(location))


def is_url(location: str) -> bool:
    """Whether a location names an object in a store, not a file of this machine."""
    return "://" in location and not location.startswith(("file://", "package://"))


def filesystem_of(location: str) -> tuple[Any, str]:
    """pyarrow's filesystem of a path or URL, and the path on it.

    Raises InputError if pyarrow does not know the URL's scheme, cannot reach the place, or the URL holds a secret.
    """
    import pyarrow.fs as pafs

    if "://" in location and not location.startswith("file://"):
        place = RemotePath(*parted(location))
        return place.filesystem, place.path
    check_location(location)
    try:
        if "://" in location:
            return pafs.FileSystem.from_uri(location)
        return pafs.LocalFileSystem(), str(_resolved(Path(location).expanduser()))
    except (RuntimeError, OSError, ValueError) as error:  # a link to itself, a home of nobody, NUL
        raise InputError(f"{location} cannot be opened: {error}") from error


def _resolved(path: Path) -> Path:
    """The path without links. Raises OSError for a link to itself, which `Path.resolve` passes over from Python 3.13 on."""
    found = path.resolve()
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(f"Symlink loop from '{path}'") from error
    return found


def below(place: AnyPath, root: AnyPath) -> PurePath:
    """The path of a place from a folder above it, on the same disk or in the same bucket."""
    return place.relative_to(root)  # type: ignore[arg-type]


def num_bytes(place: AnyPath) -> int:
    """Size of a file."""
    return place.num_bytes() if isinstance(place, RemotePath) else place.stat().st_size


def state_of(place: AnyPath) -> list[Any]:
    """Size and time of change of a file, and its place in a store; None for a local file that is gone."""
    if isinstance(place, RemotePath):
        return place.state()
    try:
        found = place.stat()
    except FileNotFoundError:
        return [None]
    return [found.st_size, found.st_mtime_ns]


def native_file(place: AnyPath) -> Any:
    """A file as pyarrow reads it."""
    import pyarrow as pa

    return place.native() if isinstance(place, RemotePath) else pa.OSFile(str(place))


def read_range(place: AnyPath, start: int, size: int) -> bytes:
    """`size` bytes of a file from `start` on; fewer at its end."""
    if isinstance(place, RemotePath):
        return place.read_range(start, size)
    with place.open("rb") as stream:
        stream.seek(start)
        return stream.read(size)


def answered(ask: Callable[[], T], place: str, location: str) -> T:
    """What `ask` returns. Raises InputError if the store behind the URL `location` is silent for WITHIN_S, or refuses.

    place: names it in a message, such as 'workspace s3://...'.
    """
    found: list[T | Exception] = []

    def run() -> None:
        try:
            found.append(ask())
        except Exception as error:
            found.append(error)

    asking = threading.Thread(target=run, daemon=True)  # nothing can stop it
    asking.start()
    asking.join(WITHIN_S)
    if not found:
        raise InputError(f"{place} does not answer within {WITHIN_S:g} s. {way_out(location)}")
    (answer,) = found
    if isinstance(answer, ObjectStoreError):
        raise unreachable(place, location, answer) from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def unreachable(place: str, location: str, error: ObjectStoreError) -> InputError:
    """One line for a store that refuses or cannot be reached."""
    reason = " ".join(str(error).split()).rstrip(".")
    return InputError(f"{place} cannot be reached: {reason}. {way_out(location)}")


def way_out(location: str) -> str:
    scheme = location.partition("://")[0]
    return f"Look whether this machine reaches {scheme}://, has credentials for it, and the name is right."


def reached(location: str, place: str) -> AnyPath:
    """As `place_at`, after a URL's store has answered. Raises InputError, which begins with `place`, if it does not."""
    found = place_at(location)
    if isinstance(found, RemotePath):
        answered(found.check_answers, place, location)
    return found
