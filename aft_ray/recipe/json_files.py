"""Reads JSON files by type, with one line per fault that names the file. Our own files end with a digest of their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from aft_ray.recipe.errors import InputError

DIGEST, END = b',\n "digest": "', b'"\n}\n'
"""The bytes before and after the digest, the last value of the file's object."""
SHOWN_FAULTS = 5
"""Most faults of one file to list."""


def sealed(text: str) -> bytes:
    """A JSON object of at least one key, whose last value is the digest of all bytes before it.

    Many of its values, such as class names, are recorded nowhere else: without a digest a change would go unnoticed.
    """
    content = text.rstrip().removesuffix("}").rstrip().encode()
    return content + DIGEST + _digest(content) + END


def parsed_json(content: bytes, shape: Any, what: str, way_out: str) -> Any:
    """One of our JSON files as plain values of the type `shape`, without the digest, which older files lack.

    Raises InputError, one line per fault; `what` names the file, and `way_out` is a sentence.
    """
    before, has_digest, rest = content.rpartition(DIGEST)
    value = checked_json(before + b"}" if has_digest else content, shape, what, way_out)
    is_intact = rest == _digest(before) + END if has_digest else not (isinstance(value, dict) and "digest" in value)
    if not is_intact:
        raise damaged(what, ["it was changed after it was written, as its digest shows"], way_out)
    return value


def checked_json(content: bytes, shape: Any, what: str, way_out: str) -> Any:
    """JSON as plain values of the type `shape`. Raises InputError as `parsed_json` does."""
    try:
        _checker(shape).validate_json(content, strict=True)  # lists of JSON may be tuples
        return from_json(content)
    except ValidationError as error:
        faults = [_fault(found) for found in error.errors(include_url=False)[:SHOWN_FAULTS]]
        raise damaged(what, faults, way_out) from error
    except ValueError as error:
        raise damaged(what, [f"Invalid JSON: {error}"], way_out) from error


def json_or_none(content: bytes) -> Any:
    """The value of a file of unknown origin; None if it is not JSON."""
    try:
        return from_json(content)
    except ValueError:
        return None


def damaged(what: str, faults: list[str], way_out: str) -> InputError:
    return InputError([f"{what} is damaged: {fault}. {way_out}" for fault in faults])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


@lru_cache(maxsize=64)
def _checker(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _fault(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text
