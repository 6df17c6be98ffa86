"""Provenance: the samples, features and settings that a run is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aft_ray.recipe.config import Recipe
from aft_ray.store.side_by_side import Store

MAY_CHANGE = ("num_workers", "use_gpu", "max_failures", "trackers")
"""Settings of `train` that do not change a run's numbers."""


def run_inputs(recipe: Recipe, origin: Mapping[str, Any]) -> dict[str, Any]:
    """All that a run's numbers follow from; what may be another when it goes on, such as the number of workers, is not."""
    sections = {key: getattr(recipe, key).model_dump(mode="json") for key in ("student", "regularizer", "train")}
    for key in MAY_CHANGE:
        del sections["train"][key]
    names = recipe.teacher_names()
    of_teachers = {name: found for name, found in origin.get("teachers", {}).items() if name in names}
    return {"recipe": {**sections, "teachers": list(names)}, "samples": origin.get("samples"), "teachers": of_teachers}


def origin(stores: Mapping[str, Store]) -> dict[str, Any]:
    """The fingerprints of a run's samples and of its teachers' features."""
    return {
        "samples": {split: store.manifest["fingerprint"] for split, store in stores.items()},
        "teachers": {d.path.split("/")[-2]: (d.manifest() or {})["fingerprint"] for d in stores["train"].features},
    }


def joined_origin(origin: Mapping[str, Any]) -> dict[str, Any]:
    """That of a run on both train and validation."""
    made_of = origin.get("samples", {})
    joined = {"train+validation": [made_of.get("train"), made_of.get("validation")], "test": made_of.get("test")}
    return {**origin, "samples": joined}
