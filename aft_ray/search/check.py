"""Faults of the recipe's section `search` beside the other sections."""

from __future__ import annotations

import math

from aft_ray.models import students
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.model import is_own_class
from aft_ray.recipe.own_class import import_class
from aft_ray.search import proposals
from aft_ray.search.space import num_subsets, space_faults, spaces, strengths, teacher_subsets, top_by_rank
from aft_ray.training import check as training
from aft_ray.training.inputs.stores import class_faults, needs_classes

MOST_TRIALS = 100_000
"""More than a search of days on a large cluster; a slip of the keyboard is told at once."""


def faults(recipe: Recipe) -> list[str]:
    """One line per fault of the methods that are compared, their strengths, teachers and resources, and of the search's size."""
    found = [
        *_method_faults(recipe),
        *_resource_faults(recipe),
        *final_faults(recipe),
        *proposals.faults(recipe),
        *_own_class_faults(recipe),
    ]
    return found or _size_faults(recipe)


def variant_faults(recipe: Recipe) -> list[str]:
    """One line per fault of the searched values, each tried in the recipe, which has no fault without them."""
    return space_faults(recipe, lambda variant: _variant_faults(recipe, variant)) or task_faults(
        recipe, recipe.dataset.task
    )


def task_faults(recipe: Recipe, task: str | None) -> list[str]:
    """Methods, searched values, a ranking and heads that need one class per sample, where the samples' `task` is another."""
    if task in (None, "classification"):
        return []
    methods = recipe.search.methods(recipe.regularizer.name)
    found = [
        f"search.compare has {method}, which needs one class per sample; the task is {task}. Leave it out."
        for method in methods
        if needs_classes(method)
    ]
    if top_by_rank(recipe) is not None:
        found.append(
            f"search.teachers={recipe.search.teachers} needs one class per sample to rank teachers by; the task is {task}."
            " Take all_subsets, singles, singles_and_pairs or a list."
        )
    if recipe.tests_heads:
        found.append(f"search.final.teacher_heads needs one class per sample; the task is {task}. Leave it out.")
    return found or space_faults(recipe, lambda variant: class_faults(variant, task))


def _method_faults(recipe: Recipe) -> list[str]:
    try:
        subsets = teacher_subsets(recipe)
    except InputError as error:
        return error.faults
    found = []
    for method in recipe.search.methods(recipe.regularizer.name):
        of_method = training.method_faults(recipe, method, subsets)
        if not of_method and not strengths(recipe, method):
            of_method = [f"search.beta has no strengths for '{method}' and no 'all'."]
        found += of_method
    return found


def final_faults(recipe: Recipe) -> list[str]:
    """Known before the samples are read where `train.streaming` is given, otherwise when their size is known."""
    final = recipe.search.final
    if not (recipe.train.streaming and final.seeds and final.train_on == "train+validation"):
        return []
    return [
        "Samples that are streamed, or too large to be held in memory, cannot be joined: final runs cannot be trained on both"
        " train and validation. Set search.final.train_on=train."
    ]


def _resource_faults(recipe: Recipe) -> list[str]:
    search, found = recipe.search, []
    if search.gpus_per_trial and search.gpus_per_trial > 1 and search.gpus_per_trial % 1:
        found.append(f"search.gpus_per_trial is {search.gpus_per_trial:g}; take a share of one GPU or whole GPUs.")
    if recipe.train.use_gpu and search.gpus_per_trial == 0:
        found.append("search.gpus_per_trial is 0, and train.use_gpu asks for a GPU. Set one of them.")
    if recipe.train.use_gpu and search.workers_per_trial > 1 and search.gpus_per_trial not in (None, 1):
        found.append("search.gpus_per_trial must be 1 with several workers per trial: each worker takes one GPU.")
    return found


def _own_class_faults(recipe: Recipe) -> list[str]:
    wanted = {"searcher": ("next", "tell"), "scheduler": ("on_trial_result",)}
    found = []
    for key, methods in wanted.items():
        if is_own_class(name := getattr(recipe.search, key)):
            try:
                import_class(name, f"search.{key}", methods)
            except InputError as error:
                found += error.faults
    return found


def _size_faults(recipe: Recipe) -> list[str]:
    lists = [recipe.search.space, *recipe.search.per_method.values()]
    longest = max((len(v) for keys in lists for v in keys.values() if isinstance(v, tuple)), default=0)
    if (count := num_trials(recipe)) <= MOST_TRIALS and longest <= MOST_TRIALS:
        return []
    return [
        f"The search would run {count:.3g} trials, the most is {MOST_TRIALS:,}. Lower search.num_samples, search.seeds or"
        " the number of values in search.beta, search.space, search.per_method and search.teachers."
    ]


def num_trials(recipe: Recipe) -> float:
    """Trials before the final ones."""
    search, names, subsets = recipe.search, recipe.teacher_names(), num_subsets(recipe)
    per_method = (space.size() * (1 if space.method == "none" else subsets) for space in spaces(recipe, [names]))
    counts = [min(size, search.num_samples or math.inf) for size in per_method]
    further = sum(min(count, search.finalists or 0) for count in counts) * (search.seeds - search.first_seeds)
    return search.first_seeds * sum(counts) + further


def _variant_faults(recipe: Recipe, variant: Recipe) -> list[str]:
    """Faults of the recipe with a searched value in place."""
    if "linear_probe" in {variant.student.model, recipe.student.model} and variant.student != recipe.student:
        return ["a linear probe cannot be searched beside other students; give it a separate recipe."]
    found = students.faults(variant.student)
    if variant.student != recipe.student:
        found += _method_faults(override(recipe, {"student": variant.student.model_dump(mode="json")}))
    return [
        *found,
        *training.regularizer_faults(variant),
        *training.setting_faults(variant),
    ]
