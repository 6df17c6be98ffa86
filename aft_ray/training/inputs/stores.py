"""The stores of a recipe: samples, and the features of its teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aft_ray.models import students, teachers
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import regularizer_class
from aft_ray.store.sample_recipe import recipe_faults
from aft_ray.store.schema import SPLITS
from aft_ray.store.side_by_side import Store, open_store
from aft_ray.store.workspace import Workspace


@dataclass(frozen=True)
class Setup:
    """A checked recipe and its open stores, by split: a command makes it once and hands it on."""

    recipe: Recipe
    stores: Mapping[str, Store]


def open_setup(recipe: Recipe, names: Sequence[str] | None = None) -> Setup:
    """Opens the stores with the features in the directories `names`; None means all that a training reads.

    Raises InputError if something is missing, was made with other settings, or is nothing that the student can learn from.
    """
    stores = open_stores(recipe, recipe.with_views(recipe.used_teachers()) if names is None else names)
    if faults := sample_faults(recipe, stores["train"].manifest):
        raise InputError(faults)
    return Setup(recipe, stores)


def open_stores(recipe: Recipe, names: Sequence[str], with_features: Sequence[str] = ()) -> dict[str, Store]:
    """The samples of every split, with the features in the directories `names`.

    with_features: the splits that have them; by default those where a training needs them.
    Raises InputError, one line per fault, if something is missing or was made with other settings.
    """
    samples = Workspace.at(recipe.workspace).samples("train").manifest() or {}
    reading = [teacher.reading(samples) for teacher in recipe.teachers if teacher.name in names]
    described = teachers.describe_views(reading, samples, recipe.train.views, flip=recipe.train.flip)
    expected = {name: description.fingerprint for name, description in described.items()}
    modalities = {name: description.modality for name, description in described.items()}
    with_features = with_features or recipe.splits_with_features()
    stores: dict[str, Store] = {}
    faults: list[str] = []
    for split in SPLITS:
        try:
            store = open_store(recipe.workspace, split, names if split in with_features else (), expected)
            stores[split] = replace(store, modalities=modalities)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return stores


def sample_faults(recipe: Recipe, manifest: Mapping[str, Any]) -> list[str]:
    """Faults of the student and the settings with the samples that are there, given their manifest."""
    if faults := recipe_faults(recipe.dataset, manifest, recipe.workspace):
        return faults
    wanted = set(students.modality(recipe.student).split("+")) - {"features"}
    if missing := wanted - set(manifest["modality"].split("+")):
        return [
            f"Student '{recipe.student.model}' reads {' and '.join(sorted(wanted))}, the samples have no"
            f" {' and no '.join(sorted(missing))}. Take another student: aft-ray list students."
        ]
    return class_faults(recipe, manifest.get("task", "classification"))


def class_faults(recipe: Recipe, task: str | None) -> list[str]:
    """Settings that need one class per sample, where the samples' `task` is another. None is classification."""
    if task in (None, "classification"):
        return []
    method = recipe.regularizer.name
    used = {
        "train.label_smoothing": recipe.train.label_smoothing > 0,
        "train.labels_per_class": recipe.train.labels_per_class is not None,
        "train.class_weights": recipe.train.class_weights != "none",
        f"regularizer.name={method}": needs_classes(method),
    }
    return [
        f"{key} needs one class per sample; the task is {task}. Leave it out."
        for key, is_used in used.items()
        if is_used
    ]


def needs_classes(method: str) -> bool:
    """Whether a method is for one class per sample. A name that is wrong is told by the verbs that train."""
    try:
        return regularizer_class(method).needs_classes
    except ValueError:
        return False
