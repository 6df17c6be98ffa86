"""JSON files of ours: written with a digest of their own bytes, read by type, each fault one line that names the file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from aft_ray.recipe.errors import InputError

DIGEST = b',\n "digest": "'
"""What comes before the digest, which is the last value of the file's object."""
SHOWN_FAULTS = 5
"""Faults of one file that are listed."""


def sealed(text: str) -> bytes:
    """A JSON object of at least one key, with the digest of all bytes before it as its last value.

    Many of its values, such as the names of classes, are recorded nowhere else: a change would not show.
    """
    content = text.rstrip().removesuffix("}").rstrip().encode()
    return content + DIGEST + _digest(content) + b'"\n}\n'


def parsed_json(content: bytes, shape: Any, what: str, way_out: str) -> Any:
    """JSON as plain values of the type `shape`, without the digest. Files of before have none.

    Raises InputError, one line per fault; `what` names the file, and `way_out` is a sentence.
    """
    try:
        value = from_json(content)
        is_intact = not isinstance(value, dict) or _is_intact(content, value.pop("digest", None))
        _checker(shape).validate_json(_unsealed(content), strict=True)  # lists of JSON may be tuples
    except ValidationError as error:
        faults = [_fault(found) for found in error.errors(include_url=False)[:SHOWN_FAULTS]]
        raise damaged(what, faults, way_out) from error
    except ValueError as error:
        raise damaged(what, [f"Invalid JSON: {error}"], way_out) from error
    if not is_intact:
        raise damaged(what, ["it was changed after it was written, as its digest shows"], way_out)
    return value


def damaged(what: str, faults: list[str], way_out: str) -> InputError:
    return InputError([f"{what} is damaged: {fault}. {way_out}" for fault in faults])


def _is_intact(content: bytes, found: Any) -> bool:
    """Whether the digest that was `found` fits; a file of before has none."""
    before, _, rest = content.rpartition(DIGEST)
    return found is None or rest == _digest(before) + b'"\n}\n'


def _unsealed(content: bytes) -> bytes:
    """The object without its digest."""
    before, found, _ = content.rpartition(DIGEST)
    return before + b"}" if found else content


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


@lru_cache(maxsize=64)
def _checker(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _fault(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text
