"""A recipe's file, at a path or URL, as plain values, merged over the file that its `base:` names."""

from __future__ import annotations

from typing import Any

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, num_bytes, place_at, reached
from aft_ray.recipe.remote import RemotePath
from aft_ray.recipe.strict_yaml import parse

LARGEST = 4 << 20
"""Bytes of a recipe."""
MOST_BASES = 50
"""Files in a chain of bases: far more than people keep in view, far fewer than Python can nest."""


def read(location: str, above: tuple[AnyPath, ...] = ()) -> tuple[dict[str, Any], list[str]]:
    """The file's content merged over its base's, and a line for each fault that does not prevent reading.

    A base is a URL, or a name relative to the folder of the file that names it.
    above: the files whose base this is. Raises InputError if a file cannot be read, or is no mapping.
    """
    beside = above[-1].parent if above and "://" not in location else None
    path = place_at(location) if beside is None else beside / location
    path = path.resolve() if isinstance(path, RemotePath) else path
    what = f"Base of {above[-1]}: {path}" if above else f"Recipe {path}"
    reached(str(path), what)
    text = _text(path, what)
    if path.resolve() in {other.resolve() for other in above}:
        raise InputError(f"{what} is based on itself: {' -> '.join(map(str, (*above, path)))}.")
    content, faults = parse(text, what)
    if content is None:
        raise InputError(f"{what} is empty.")
    if not isinstance(content, dict):
        raise InputError(f"{what} must be a mapping of keys, got {type(content).__name__}.")
    if "base" not in content:
        return content, faults
    name = content.pop("base")
    if not isinstance(name, str):
        raise InputError([*faults, f"{what}: base must be the name of a file, got {name!r}."])
    if len(above) == MOST_BASES:
        chain = f"{above[0]} -> {above[1]} -> ... -> {path}"
        fault = f"{what} is the last of {MOST_BASES} bases in a chain, and has another: {chain}. Merge some of them."
        raise InputError([*faults, fault])
    base, found = read(name, (*above, path))
    return merged(base, content), [*found, *faults]


def _text(path: AnyPath, what: str) -> str:
    try:
        if not path.exists():
            raise InputError(f"{what} does not exist.")
        if not path.is_file():
            raise InputError(f"{what} is a directory or a device; name a YAML file.")
        if num_bytes(path) > LARGEST:
            raise InputError(f"{what} is larger than {LARGEST >> 20} MiB: too large for a recipe.")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8 text (byte {error.start + 1}). Save it as UTF-8.") from error
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}.") from error


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `changes`, level by level where both have a section; anything else is replaced."""
    found = dict(base)
    for key, value in changes.items():
        found[key] = merged(found[key], value) if _are_sections(found.get(key), value) else value
    return found


def _are_sections(base: Any, value: Any) -> bool:
    """Whether both are mappings of one form: a range {min, max} replaces a mapping of methods, and the other way round."""
    if not (isinstance(base, dict) and isinstance(value, dict)):
        return False
    return bool({"min", "max"} & base.keys()) == bool({"min", "max"} & value.keys())
