"""Every fault of a recipe at once, before anything is started."""

from __future__ import annotations

from aft_ray import datasets, students, teachers
from aft_ray.config import InputError, Recipe
from aft_ray.regularizers import REGULARIZERS, build_regularizer
from aft_ray.schema import SPLITS
from aft_ray.store import Store, open_store


def check(recipe: Recipe) -> None:
    """Raises InputError with one line per fault: data set, teachers, student, regularizer, batch."""
    faults = [
        *datasets.faults(recipe.dataset),
        *teachers.faults(recipe.teachers),
        *students.faults(recipe.student),
        *_regularizer_faults(recipe),
    ]
    if recipe.train.global_batch_size < recipe.train.num_workers:
        faults.append(
            f"train.global_batch_size is {recipe.train.global_batch_size}: it must be at least train.num_workers,"
            f" {recipe.train.num_workers}."
        )
    if faults:
        raise InputError(faults)


def _regularizer_faults(recipe: Recipe) -> list[str]:
    faults = []
    for method in dict.fromkeys((recipe.regularizer.name, *recipe.search.compare)):
        if method not in REGULARIZERS:
            faults.append(f"Unknown regularizer '{method}'. Known: {', '.join(REGULARIZERS)}.")
        elif method != "none" and not recipe.teachers:
            faults.append(f"Regularizer '{method}' needs at least one entry in 'teachers'.")
        elif method != "none" and not recipe.search.betas(method):
            faults.append(f"search.beta has no strengths for '{method}' and no 'all'.")
    name = recipe.regularizer.name
    if not faults and recipe.teachers:
        try:
            build_regularizer(
                name, student_dim=1, teacher_dims=[1] * len(recipe.teachers), **recipe.regularizer.options
            )
        except ValueError as error:
            faults.append(f"regularizer: {error}")
    return faults


def open_stores(recipe: Recipe) -> dict[str, Store]:
    """The samples of every split, train and validation with the features of the recipe's teachers.

    Raises InputError if something is missing, or was made with another setting than the recipe's.
    """
    names = recipe.teacher_names()
    expected = {teacher.name: teachers.describe_teacher(teacher).fingerprint for teacher in recipe.teachers}
    return {split: open_store(recipe.workspace, split, () if split == "test" else names, expected) for split in SPLITS}
