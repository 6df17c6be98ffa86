"""Looks into files of unknown origin, to tell by their content whether they are ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.json_files import json_or_none
from aft_ray.store.files import Directory


def parquet_metadata(place: Directory, name: str) -> Mapping[bytes, bytes]:
    """The metadata of a Parquet file of unknown origin; empty if the file is damaged or not Parquet."""
    try:
        return pq.read_schema(f"{place}/{name}", filesystem=place.filesystem).metadata or {}
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and not place.is_local:
            place.read(name)  # raises if the store failed, not the content
        return {}


def json_object(place: Directory, name: str) -> dict[str, Any]:
    """The object in a JSON file of unknown origin; empty if the file is damaged or holds no object."""
    try:
        found = json_or_none(place.read(name))
    except ObjectStoreError:
        raise
    except (OSError, InputError):
        return {}
    return found if isinstance(found, dict) else {}
