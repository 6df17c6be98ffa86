"""Which run or search a file belongs to: an id that is drawn when a directory is claimed and repeated in each of its files.

A valid file of another run would otherwise be read as this one's. A directory may be renamed, moved and copied whole.
"""

from __future__ import annotations

import uuid
from typing import Any

from aft_ray.recipe.json_files import damaged

RUN_ID = "run_id"
OF_BEFORE = ""
"""The owner of a directory that was claimed when files had no ids."""


def new_id() -> str:
    return uuid.uuid4().hex[:16]


def marked(content: dict[str, Any], owner: str | None) -> dict[str, Any]:
    """The content of a file with the id of its owner, if that has one."""
    return {**content, RUN_ID: owner} if owner else content


def unmarked(content: dict[str, Any], owner: str | None, what: str, way_out: str) -> dict[str, Any]:
    """The content of a file without the id. Raises InputError if it is not `owner`'s; with None that is not known."""
    rest = dict(content)
    check_owner(rest.pop(RUN_ID, None), owner, what, way_out)
    return rest


def check_owner(found: str | None, owner: str | None, what: str, way_out: str) -> None:
    """Raises InputError if a file's id is another than its owner's. A file of before has none."""
    if found is not None and owner is not None and found != owner:
        raise damaged(what, ["it is of another run or search"], way_out)
