"""The base of every section of a recipe: frozen, without unknown keys, secrets or values that no file can hold."""

from __future__ import annotations

import math
import re
import reprlib
import typing
from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from aft_ray.recipe.secrets import WITHOUT_SECRETS, has_secret

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST_NAME = 200
"""Characters of a directory's name; file systems allow 255 bytes, suffixes included."""
UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
"""Characters that no path can have, or no UTF-8 file."""

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = _shorten.maxlong = 100
shown = _shorten.repr
"""A value for a message; long ones are cut."""


class Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, serialize_by_alias=True, allow_inf_nan=False
    )
    shorthands: ClassVar[tuple[str, ...]] = ()
    """Keys of a recipe's file that are replaced by others before the section is checked."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """`steps: true` would be 1 step."""
        if _has_truth_value(value) and _is_number(cls, info.field_name or ""):
            raise ValueError(f"must be a number, got {shown(value)}")
        return value

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        if fault := _unwritable(value):
            raise ValueError(fault)
        return value

    @model_validator(mode="after")
    def _extras_can_be_written(self) -> Model:
        """Checks the keys that a section accepts without a field, such as a method's options."""
        extra = (self.model_extra or {}).items()
        faults = [f"{key} {fault}" for key, value in extra if (fault := _unwritable(value, key))]
        if faults:
            raise ValueError("\n".join(faults))
        return self


def _unwritable(value: Any, key: str = "") -> str | None:
    """The fault of a value that no recipe may hold: recipes are copied into workspaces, reports and logs."""
    if has_secret({key: value}):
        return f"must not hold a secret, and this looks like one; {WITHOUT_SECRETS}"
    items = list(_items(value))
    if any(isinstance(item, str) and UNWRITABLE.search(item) for item in items):
        return f"must not have the characters NUL and half of a surrogate pair, got {shown(value)}"
    if any(isinstance(item, float) and not math.isfinite(item) for item in items):
        return f"must be a finite number, got {shown(value)}"
    return None


def _items(value: Any) -> typing.Iterator[Any]:
    """The value, and everything in its lists and mappings, keys included."""
    yield value
    inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    if isinstance(inside, (list, tuple)):
        for item in inside:
            yield from _items(item)


def _has_truth_value(value: Any) -> bool:
    """Whether it is a truth value or a list with one; a section inside is checked by its own model."""
    if isinstance(value, dict):
        return any(_has_truth_value(item) for item in value.values() if isinstance(item, (list, tuple)))
    if isinstance(value, (list, tuple)):
        return any(map(_has_truth_value, value))
    return isinstance(value, bool)


@cache  # type hints are evaluated anew at each call
def _is_number(model: type[Model], field: str) -> bool:
    """Whether the field accepts numbers but not truth values."""
    leaves = set(_leaves(typing.get_type_hints(model)[field]))
    return bool(leaves & {int, float}) and not leaves & {bool, Any}


def _leaves(annotation: Any) -> typing.Iterator[Any]:
    """The member types of an annotation; for a mapping, the types of its values."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        parts = parts[1:]
    if typing.get_origin(annotation) is typing.Literal or not parts:
        yield annotation
    else:
        for part in parts:
            yield from _leaves(part)


def checked_name(name: str) -> str:
    """`name` itself, if it can be the name of a directory inside a workspace."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"a name has letters, digits, '.', '_' and '-' and starts with a letter or digit, got {name!r}"
        )
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name has at most {LONGEST_NAME} characters, got {len(name)}")
    return name


OWN_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
LIBRARIES = ("timm", "open_clip", "transformers", "tiny")
"""Prefixes of models' names that do not name a module of the user's own."""


def named_or_own(value: str, names: Iterable[str]) -> str:
    """`value` if it is one of `names` or a class of the user's own. Raises ValueError for anything else."""
    if value not in (known := tuple(names)) and not is_own_class(value):
        raise ValueError(f"must be one of {', '.join(known)}, or a class of your own, module:Class; got {shown(value)}")
    return value


def is_own_class(name: str) -> bool:
    """Whether `name` has the form `module:Class`, a class of the user's own."""
    return OWN_CLASS.fullmatch(name) is not None and name.partition(":")[0] not in LIBRARIES


def view_name(teacher: str, number: int) -> str:
    """The directory of a teacher's features of one view of each picture; 0 is the whole picture."""
    return f"{teacher}.view{number}" if number else teacher


def is_view_name(name: str) -> bool:
    """Whether `view_name` may give this name to a view, so that no teacher can have it."""
    return re.search(r"\.view[1-9][0-9]*$", name) is not None
