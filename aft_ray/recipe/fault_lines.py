"""Turns the faults that pydantic finds in a recipe into one line each for the user."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from aft_ray.recipe.model import Model, shown

PLAIN = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
}
"""The wanted types in words, by the kind of pydantic's error."""


def fault_lines(error: ValidationError, model: type[Model]) -> list[str]:
    """One line for each fault; `model` is the whole recipe's."""
    return [line for fault in _meant(error.errors()) for line in _lines(fault, model)]


def keys(section: type[Model]) -> list[str]:
    return [*(field.alias or name for name, field in section.model_fields.items()), *section.shorthands]


def section_at(location: Sequence[Any], model: type[Model]) -> type[Model] | None:
    """The model of the recipe's section at `location`."""
    found: Any = model
    for part in location:
        if isinstance(part, int) or "[" in part:  # an item of a list; one type of a union
            continue
        candidates = types_of(typing.get_type_hints(found).get(part))
        found = next((c for c in candidates if isinstance(c, type) and issubclass(c, Model)), None)
        if found is None:
            return None
    return typing.cast("type[Model]", found)


def types_of(annotation: Any) -> tuple[Any, ...]:
    """The members of a union or of a list, or the type itself."""
    return typing.get_args(annotation) or (annotation,)


def _meant(errors: Sequence[Any]) -> list[Any]:
    """For a value of several types, keeps the faults of the intended type."""
    inside = [error["loc"] for error in errors if error["type"] not in ("model_type", "tuple_type")]

    def is_told_inside(location: tuple[Any, ...]) -> bool:
        """Whether `location` is an unintended type: another type has faults further inside. Names of types have brackets."""
        of_several = bool(location) and "[" in str(location[-1]) and location not in inside
        return of_several and any(loc[: len(location) - 1] == location[:-1] for loc in inside)

    return [error for error in errors if not is_told_inside(error["loc"])]


def _lines(error: Mapping[str, Any], model: type[Model]) -> list[str]:
    location, value = error["loc"], shown(error.get("input"))
    key = ".".join(str(part) for part in location if "[" not in str(part))  # the others name one type of a union
    if error["type"] == "value_error":
        return [_own_line(key, fault) for fault in error["msg"].removeprefix("Value error, ").splitlines()]
    if error["type"] == "extra_forbidden":
        return [_unknown(key, location, model)]
    if error["type"] == "missing":
        return [f"Missing key '{key}'."]
    if error["type"] == "model_type" and (section := section_at(location, model)):
        return [f"{key} must be a section with keys of {', '.join(keys(section))}, got {value}."]
    if error["type"] == "tuple_type":
        return [f"{key} must be a list, got {value}."]
    if error["type"] == "string_type":
        hint = " Put it in quotes." if isinstance(error["input"], (bool, int, float)) else ""
        return [f"{key.removesuffix('.str')} must be a text, got {value}.{hint}"]
    if error["type"] in PLAIN:
        return [f"{key} must be {PLAIN[error['type']]}, got {value}."]
    return [f"{key} must be {error['msg'].removeprefix('Input should be ')}, got {value}."]


def _own_line(key: str, message: str) -> str:
    """A fault that one of the recipe's own checks found."""
    separator = " " if message.startswith("must") else ": "
    return f"{key}{separator}{message}." if key else f"{message}."


def _unknown(key: str, location: Sequence[Any], model: type[Model]) -> str:
    section = section_at(location[:-1], model)
    known = keys(section) if section else []
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"Unknown key '{key}'.{hint} Known: {', '.join(known) or 'none'}."
