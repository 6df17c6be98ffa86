"""Writes that an object store makes only if nobody else wrote before: of several processes, exactly one succeeds.

pyarrow cannot ask for them, obstore can. A store is tried once: some servers ignore the condition and write twice.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

from aft_ray.recipe.errors import ObjectStoreError
from aft_ray.recipe.places import answered
from aft_ray.recipe.remote import root_of
from aft_ray.store.files import Directory

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
PATIENCE: dict[str, Any] = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}


@dataclass(frozen=True)
class Conditional:
    """One file. `read` gives its text and its version; `write` succeeds if the version is still the one that was read."""

    store: Any
    key: str

    def read(self) -> tuple[str | None, Any]:
        """Both None if there is no file."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            found = obstore.get(self.store, self.key)
            content = bytes(found.bytes()).decode(errors="replace")
        except FileNotFoundError:
            return None, None
        except BaseError as error:
            raise ObjectStoreError(f"{self.key}: {_one_line(error)}") from error
        return content, {name: value for name in ("e_tag", "version") if (value := found.meta[name])}

    def write(self, content: str, seen: Any) -> bool:
        """Whether the file was written. seen: the version that `read` gave; None creates the file."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            obstore.put(self.store, self.key, content.encode(), mode=seen or "create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return False
        except BaseError as error:
            raise ObjectStoreError(f"{self.key}: {_one_line(error)}") from error
        return True


def conditional(place: Directory, name: str) -> Conditional | None:
    """The file `name` of a directory; None on a disk, without the package obstore, or if the store has no such writes."""
    found = root_of(place.filesystem, place.path)
    if found is None or not found.root.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        return None
    store = _tried(found.root, getattr(place.filesystem, "region", None), found.key)
    return None if store is None else Conditional(store, f"{found.key}/{name}")


def _opened(root: str, region: str | None) -> Any:
    """obstore's view of a bucket that pyarrow has by the URL `root`."""
    from obstore.store import from_url

    url, _, query = root.partition("?")
    given = {key: values[-1] for key, values in parse_qs(query).items()}
    options: dict[str, Any] = {"client_options": {"allow_http": True}}  # where the URL or AWS_ENDPOINT_URL says so
    if region:
        options["region"] = region
    if server := given.get("endpoint_override"):
        options["endpoint"] = server if "://" in server else f"{given.get('scheme', 'https')}://{server}"
    return from_url(url, retry_config=PATIENCE, **options)


_TRIED: dict[str, Any] = {}
"""By a bucket's URL: its store, None if it keeps no conditions."""


def _tried(root: str, region: str | None, folder: str) -> Any:
    """The store, if a file that is there is not created again; found out once a process, with a file in `folder`."""
    if root not in _TRIED:
        _TRIED[root] = None
        # Without obstore, without credentials that it finds, and after an answer that it does not know, the bakery is left.
        with suppress(Exception):
            store = _opened(root, region)
            key = f"{folder}/.probe-{uuid.uuid4().hex}"
            _TRIED[root] = store if answered(lambda: _keeps_conditions(store, key), root, root) else None
    return _TRIED[root]


def _keeps_conditions(store: Any, key: str) -> bool:
    import obstore

    file = Conditional(store, key)
    try:
        if not file.write("1", None) or file.write("2", None):
            return False
        _, first = file.read()
        return file.write("3", first) and not file.write("4", first)
    finally:
        with suppress(Exception):
            obstore.delete(store, key)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
