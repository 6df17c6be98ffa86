"""The stores of a recipe: samples, and features of its teachers."""

from __future__ import annotations

from aft_ray.models import students, teachers
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import SPLITS
from aft_ray.store.side_by_side import Store, open_store
from aft_ray.store.workspace import Workspace


def open_stores(recipe: Recipe) -> dict[str, Store]:
    """The samples of every split, those that training needs them for with the features of the recipe's teachers.

    Raises InputError if something is missing, or was made with another setting than the recipe's.
    """
    names = recipe.teacher_names()
    samples = Workspace.at(recipe.workspace).samples("train").manifest() or {}
    reading = [teacher.reading(samples) for teacher in recipe.teachers]
    expected = {teacher.name: teachers.describe_teacher(teacher).fingerprint for teacher in reading}
    with_features = recipe.extracted_splits()
    stores: dict[str, Store] = {}
    faults: list[str] = []
    for split in SPLITS:
        try:
            stores[split] = open_store(recipe.workspace, split, names if split in with_features else (), expected)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    manifest = stores["train"].manifest
    wanted = set(students.modality(recipe.student).split("+")) - {"features"}
    if missing := wanted - set(manifest["modality"].split("+")):
        raise InputError(
            f"Student '{recipe.student.model}' reads {' and '.join(sorted(wanted))}, the samples have no"
            f" {' and no '.join(sorted(missing))}. Take another student: aft-ray list students."
        )
    if faults := _task_faults(recipe, manifest.get("task", "classification")):
        raise InputError(faults)
    return stores


def _task_faults(recipe: Recipe, task: str) -> list[str]:
    """What of the recipe makes sense with one class per sample only, if that is not the task."""
    if task == "classification":
        return []
    used = {
        "train.label_smoothing": recipe.train.label_smoothing > 0,
        "train.labels_per_class": recipe.train.labels_per_class is not None,
        "regularizer.name=btune": recipe.regularizer.name == "btune",
    }
    return [
        f"{key} needs one class per sample; the task is {task}. Leave it out."
        for key, is_used in used.items()
        if is_used
    ]
