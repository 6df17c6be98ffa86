"""Provenance: the samples, features and settings that a run is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.models.students import recorded, resolved
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.sections import TrainConfig
from aft_ray.regularizers import regularizer_class
from aft_ray.store.sample_recipe import DECODING
from aft_ray.store.shards import as_now, without_place
from aft_ray.store.side_by_side import Store
from aft_ray.training.towers import towers_of

MAY_CHANGE = ("num_workers", "use_gpu", "max_failures", "trackers")
"""Settings of `train` that do not change a run's numbers."""


def with_defaults(recipe: Recipe, started: Mapping[str, Any] | None, modalities: Mapping[str, str]) -> Recipe:
    """The recipe with the defaults that depend on its steps, method, teachers and student, where it gives no others.

    started: provenance of the run that is to go on, which keeps the values that it was started with. modalities: what each
    teacher reads.
    """
    before = started["recipe"] if started else None
    student = resolved(recipe.student)
    if before is not None and recipe.student.pooling is None and before["student"]["model"] == student.model:
        student = student.model_copy(update={"pooling": recorded(before["student"]).pooling})
    changes = {"student.pooling": student.pooling, "train.warmup_steps": _warmup_steps(recipe.train, before)}
    return override(recipe, changes | _method_options(recipe, before, modalities))


def _warmup_steps(train: TrainConfig, before: Mapping[str, Any] | None) -> int:
    """before: recipe of a started run."""
    if train.warmup_steps is None and before is not None and before.get("train", {}).get("steps") == train.steps:
        return int(before["train"].get("warmup_steps", 0))
    return train.num_warmup_steps


def _method_options(recipe: Recipe, before: Mapping[str, Any] | None, modalities: Mapping[str, str]) -> dict[str, Any]:
    """Options that the recipe's method has with these teachers, by their dotted keys. before: recipe of a started run."""
    if not (names := recipe.used_teachers()):
        return {}
    side_by_side = towers_of(recipe.student, names, modalities).most_teachers(len(names))
    options = regularizer_class(recipe.regularizer.name).recipe_options(side_by_side)
    return {
        f"regularizer.{name}": value
        for name, value in options.items()
        if name not in recipe.regularizer.options and (before is None or name in before["regularizer"])
    }


@with_config(ConfigDict(extra="allow"))
class RecordedStudent(TypedDict):
    model: str


@with_config(ConfigDict(extra="allow"))
class RecordedRecipe(TypedDict):
    """The sections of a recipe that decide a run's numbers. teachers: the names that it reads."""

    student: RecordedStudent
    regularizer: NotRequired[dict[str, Any]]
    train: NotRequired[dict[str, Any]]
    teachers: list[str]


@with_config(ConfigDict(extra="allow"))
class Inputs(TypedDict):
    """What a run is made from, as inputs.json has it."""

    recipe: RecordedRecipe
    samples: dict[str, Any] | None
    teachers: dict[str, Any]
    run_id: NotRequired[str]


def run_inputs(recipe: Recipe, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines a run's numbers. The number of workers, say, does not: a run may go on with another."""
    parts = {"student": resolved(recipe.student), "regularizer": recipe.regularizer, "train": recipe.train}
    sections = {key: part.model_dump(mode="json") for key, part in parts.items()}
    for key in MAY_CHANGE:
        del sections["train"][key]
    names = recipe.used_teachers()
    of_teachers = {
        name: found for name, found in origin.get("teachers", {}).items() if name in recipe.with_views(names)
    }
    return {"recipe": {**sections, "teachers": list(names)}, "samples": origin.get("samples"), "teachers": of_teachers}


def differing_inputs(on_disk: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Dotted keys in which a run on disk was started with other inputs, sorted."""
    on_disk = {**on_disk, "recipe": with_later_keys(on_disk["recipe"])}
    if not inputs["recipe"]["teachers"]:  # standard transfer once listed teachers that it never read
        on_disk = {**on_disk, "teachers": {}, "recipe": {**on_disk["recipe"], "teachers": []}}
    before, now = _comparable_samples(on_disk["samples"], inputs["samples"])
    return differing_keys({**on_disk, "samples": before}, {**inputs, "samples": now})


def with_later_keys(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A run's recorded recipe with the keys that came after it was started, as it ran without them."""
    defaults = TrainConfig().model_dump(mode="json", exclude=set(MAY_CHANGE))
    student = recorded(recipe["student"]).model_dump(mode="json")
    return {**recipe, "student": student, **({"train": defaults | recipe["train"]} if "train" in recipe else {})}


def _comparable_samples(before: Any, now: Any) -> tuple[Any, Any]:
    """The samples' fingerprints of two runs, split by split; a joined split has a list of two."""
    if isinstance(before, dict) and isinstance(now, dict):
        if "dataset" in before and "dataset" in now:
            return as_now(before, now), without_place(now)
        pairs = {key: _comparable_samples(before[key], now[key]) for key in before.keys() & now.keys()}
        return {**before, **{k: pair[0] for k, pair in pairs.items()}}, {
            **now,
            **{k: pair[1] for k, pair in pairs.items()},
        }
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        both = [_comparable_samples(*pair) for pair in zip(before, now, strict=True)]
        return [left for left, _ in both], [right for _, right in both]
    return before, now


def origin(stores: Mapping[str, Store]) -> dict[str, Any]:
    """The fingerprints of a run's samples and of its teachers' features."""
    train = stores["train"]
    return {
        "samples": {split: store.manifest["fingerprint"] for split, store in stores.items()},
        "teachers": {n: m["fingerprint"] for n, m in zip(train.names, train.feature_manifests, strict=True)},
    }


def how_decoded(origin: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `dataset` that say how the pictures of a run were decoded, by its samples' fingerprints."""
    found = origin.get("samples") or {}
    train = found["train"] if "train" in found else next(iter(found.get("train+validation", [])), None)
    return {key: (train or {}).get(key) for key in DECODING}


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
