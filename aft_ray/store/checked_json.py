"""JSON files of a workspace, checked when they are read: a file may be truncated, edited, or of something else."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory

NAMED = 3
"""Faults of one file that are told."""


class Form(BaseModel):
    """A JSON object of which some keys are checked; types are not converted."""

    model_config = ConfigDict(extra="allow", strict=True)


def read_json(directory: Directory, name: str, form: type[BaseModel], way_out: str) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError, one line per fault, if it is not as `form` says."""
    try:
        found = json.loads(directory.read(name))
    except (ValueError, RecursionError) as error:
        raise damaged(directory, name, f"it is no whole JSON ({error})", way_out) from error
    check_form(found, form, directory, name, way_out)
    return found


def check_form(found: Any, form: type[BaseModel], directory: Directory, name: str, way_out: str) -> None:
    """Raises InputError, one line per fault, if the content of a file is not as `form` says."""
    try:
        form.model_validate(found)
    except ValidationError as error:
        faults = [(".".join(map(str, entry["loc"])) or "all of it", entry["msg"]) for entry in error.errors()[:NAMED]]
        raise InputError(
            [str(damaged(directory, name, f"{key}: {fault}", way_out)) for key, fault in faults]
        ) from error


def damaged(directory: Directory, name: str, reason: str, way_out: str) -> InputError:
    """The error for a file that is not as it was written."""
    return InputError(f"{directory}/{name} is damaged: {reason}. {way_out}")
