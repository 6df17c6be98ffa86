"""Provenance: the samples, features and settings that a run is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aft_ray.models.students import modality
from aft_ray.recipe.config import Recipe, override
from aft_ray.regularizers import regularizer_class
from aft_ray.store.side_by_side import Store

MAY_CHANGE = ("num_workers", "use_gpu", "max_failures", "trackers")
"""Settings of `train` that do not change a run's numbers."""


def with_method_options(recipe: Recipe, started: Mapping[str, Any] | None) -> Recipe:
    """The recipe with the options that its method has with these teachers, where it gives no others.

    started: provenance of the run that is to go on, which keeps the options that it was started with.
    """
    if not recipe.used_teachers():
        return recipe
    towers = len(modality(recipe.student).split("+"))
    options = regularizer_class(recipe.regularizer.name).recipe_options(len(recipe.teachers) // towers)
    given = recipe.regularizer.options
    changes = {
        f"regularizer.{name}": value
        for name, value in options.items()
        if name not in given and (started is None or name in started["recipe"]["regularizer"])
    }
    return override(recipe, changes)


def run_inputs(recipe: Recipe, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines a run's numbers. The number of workers, say, does not: a run may go on with another."""
    sections = {key: getattr(recipe, key).model_dump(mode="json") for key in ("student", "regularizer", "train")}
    for key in MAY_CHANGE:
        del sections["train"][key]
    names = recipe.used_teachers()
    of_teachers = {name: found for name, found in origin.get("teachers", {}).items() if name in names}
    return {"recipe": {**sections, "teachers": list(names)}, "samples": origin.get("samples"), "teachers": of_teachers}


def differing_inputs(on_disk: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Dotted keys in which a run on disk was started with other inputs, sorted."""
    student = {"options": {}, **on_disk["recipe"]["student"]}  # a key that came later
    on_disk = {**on_disk, "recipe": {**on_disk["recipe"], "student": student}}
    if not inputs["recipe"]["teachers"]:  # standard transfer once listed teachers that it never read
        on_disk = {**on_disk, "teachers": {}, "recipe": {**on_disk["recipe"], "teachers": []}}
    return differing_keys(on_disk, inputs)


def origin(stores: Mapping[str, Store]) -> dict[str, Any]:
    """The fingerprints of a run's samples and of its teachers' features."""
    return {
        "samples": {split: store.manifest["fingerprint"] for split, store in stores.items()},
        "teachers": {d.path.split("/")[-2]: (d.manifest() or {})["fingerprint"] for d in stores["train"].features},
    }


def joined_origin(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a run trained on train + validation."""
    made_of = origin.get("samples", {})
    joined = {"train+validation": [made_of.get("train"), made_of.get("validation")], "test": made_of.get("test")}
    return {**origin, "samples": joined}


def differing_keys(left: Any, right: Any, prefix: str = "") -> list[str]:
    """Dotted keys at which two JSON values differ, sorted; without a leading `recipe`."""
    left, right = json.loads(json.dumps(left)), json.loads(json.dumps(right))
    if isinstance(left, dict) and isinstance(right, dict):
        return [
            found
            for key in sorted(left.keys() | right.keys())
            for found in differing_keys(left.get(key), right.get(key), f"{prefix}.{key}" if prefix else str(key))
        ]
    return [] if left == right else [prefix.removeprefix("recipe.")]
