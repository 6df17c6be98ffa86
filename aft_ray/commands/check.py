"""A command checks its recipe and opens its stores once, before anything starts, and hands both on as one `Setup`.

Each verb reads some sections of a recipe; faults elsewhere do not concern it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError

if TYPE_CHECKING:
    from aft_ray.training.inputs.stores import Setup


def check(recipe: Recipe, verb: str) -> None:
    """Raises InputError with one line per fault of the sections that `verb` reads."""
    faults = [fault for part in PARTS[verb] for fault in part(recipe)]
    if not faults and verb in ("search", "pipeline"):
        faults = _variant_faults(recipe)
    if faults:
        raise InputError(list(dict.fromkeys(faults)))


def faults_and_absent(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Faults of the recipe for `pipeline`, and lines on models and data that are only not at hand here."""
    from aft_ray.models.model_files import NOT_AT_HAND

    found = [fault for part in (_teacher_faults, _trial_faults, _search_faults) for fault in part(recipe)]
    if all(NOT_AT_HAND in fault for fault in found):
        found += _variant_faults(recipe)
    absent = [fault for fault in found if NOT_AT_HAND in fault]
    faults = [fault for fault in found if fault not in absent]
    return list(dict.fromkeys(faults)), list(dict.fromkeys([*absent, *_dataset_faults(recipe)]))


def open_setup(recipe: Recipe, verb: str) -> Setup:
    """The checked recipe and its stores.

    Raises InputError with one line per fault, and if samples or features are missing or were made with other settings.
    """
    from aft_ray.training.inputs.stores import open_setup

    check(recipe, verb)
    names = recipe.used_teachers() if verb == "train" else recipe.teacher_names()
    setup = open_setup(recipe, names if verb == "rank" else recipe.with_views(names))
    if verb == "search" and (faults := _task_faults(setup)):
        raise InputError(faults)
    return setup


def _dataset_faults(recipe: Recipe) -> list[str]:
    """Faults of the raw data, which is not needed once the samples are complete and hold copies of it."""
    from aft_ray import datasets
    from aft_ray.store.sample_recipe import whole_samples
    from aft_ray.store.workspace import Workspace

    if recipe.dataset.copy_content and whole_samples(Workspace.at(recipe.workspace)):
        return []
    return datasets.faults(recipe.dataset)


def _lacking_teachers(recipe: Recipe) -> list[str]:
    return [] if recipe.teachers else ["The recipe names no teachers: there is nothing to extract."]


def _lacking_samples(recipe: Recipe) -> list[str]:
    """Told before Ray starts, which takes longer than to see it."""
    from aft_ray.store.workspace import Workspace

    workspace = Workspace.at(recipe.workspace)
    if workspace.samples("train").manifest() is None:
        return [f"No samples in {workspace}. Run 'aft-ray prepare' first."]
    return []


def _teacher_faults(recipe: Recipe) -> list[str]:
    from aft_ray.models import teachers

    return teachers.faults(recipe.teachers)


def _training_faults(recipe: Recipe) -> list[str]:
    from aft_ray.training import check as training

    return training.faults(recipe)


def _trial_faults(recipe: Recipe) -> list[str]:
    """Faults of a search's trainings, with its first combination of teachers: it may never train with all at once."""
    from aft_ray.search.space import first_subset

    first = first_subset(recipe)
    teachers = [teacher.model_dump(mode="json") for teacher in recipe.teachers if teacher.name in first]
    return _training_faults(override(recipe, {"teachers": teachers, "search": {}}))


def _search_faults(recipe: Recipe) -> list[str]:
    from aft_ray.search import check as searching

    return searching.faults(recipe)


def _variant_faults(recipe: Recipe) -> list[str]:
    """Tries searched values in a recipe that is right without them."""
    from aft_ray.search import check as searching

    return searching.variant_faults(recipe)


def _task_faults(setup: Setup) -> list[str]:
    """Faults of a search that depend on the samples' task."""
    from aft_ray.search import check as searching

    return searching.task_faults(setup.recipe, setup.stores["train"].manifest.get("task"))


PARTS = {
    "prepare": (_dataset_faults,),
    "plan": (_dataset_faults, _lacking_teachers, _teacher_faults),
    "extract": (_lacking_teachers, _lacking_samples, _teacher_faults),
    "rank": (_teacher_faults,),
    "train": (_training_faults,),
    "search": (_teacher_faults, _trial_faults, _search_faults),
    "pipeline": (_dataset_faults, _teacher_faults, _trial_faults, _search_faults),
}
