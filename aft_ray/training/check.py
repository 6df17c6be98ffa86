"""Every fault of a recipe at once, before anything is started."""

from __future__ import annotations

import inspect

from aft_ray import datasets
from aft_ray.models import students, teachers
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import REGULARIZERS, build_regularizer
from aft_ray.search import proposals
from aft_ray.search.space import space_faults, teacher_subsets
from aft_ray.training import trackers
from aft_ray.training.build import regularizer_arguments


def check(recipe: Recipe) -> None:
    """Raises InputError with one line per fault: data set, teachers, student, regularizer, batch."""
    faults = [
        *datasets.faults(recipe.dataset),
        *teachers.faults(recipe.teachers),
        *students.faults(recipe.student),
        *(_tower_faults(recipe) or _regularizer_faults(recipe)),
        *_training_faults(recipe),
    ]
    if not faults:
        faults = _search_faults(recipe)
    if faults:
        raise InputError(faults)


def has_two_towers(recipe: Recipe) -> bool:
    """Whether the student reads images and texts."""
    return not students.faults(recipe.student) and students.modality(recipe.student) == "image+text"


def compared_teachers(recipe: Recipe) -> list[tuple[str, ...]]:
    """The combinations of teachers that a search compares: a student with two towers always needs both of its teachers."""
    return [recipe.teacher_names()] if has_two_towers(recipe) else teacher_subsets(recipe)


def _tower_faults(recipe: Recipe) -> list[str]:
    """What a student with two towers is told about its teachers: kernels of one modality each are multiplied."""
    if not recipe.teachers or not has_two_towers(recipe) or teachers.faults(recipe.teachers):
        return []
    found = [teachers.describe_teacher(teacher).modality for teacher in recipe.teachers]
    faults = []
    if found != ["image", "text"]:
        faults.append(
            f"Student '{recipe.student.model}' has two towers: 'teachers' must be one of images and then one of texts, got"
            f" {', then '.join(found)}."
        )
    if recipe.search.teachers not in ("all_subsets", (recipe.teacher_names(),)):
        faults.append("search.teachers has no effect on a student with two towers, which needs both. Leave it out.")
    return faults


def _regularizer_faults(recipe: Recipe) -> list[str]:
    two_towers = has_two_towers(recipe)
    faults = []
    for method in dict.fromkeys((recipe.regularizer.name, *recipe.search.compare)):
        if method not in REGULARIZERS:
            faults.append(f"Unknown regularizer '{method}'. Known: {', '.join(REGULARIZERS)}.")
        elif method != "none" and not recipe.teachers:
            faults.append(f"Regularizer '{method}' needs at least one entry in 'teachers'.")
        elif two_towers and "combine" not in inspect.signature(REGULARIZERS[method]).parameters:
            faults.append(
                f"Regularizer '{method}' is for students with one tower, '{recipe.student.model}' has two. Take aft or kd."
            )
        elif method != "none" and not recipe.search.betas(method):
            faults.append(f"search.beta has no strengths for '{method}' and no 'all'.")
    name = recipe.regularizer.name
    if not faults and recipe.teachers:
        width = (1, 1) if two_towers else 1
        try:
            regularizer = build_regularizer(
                name, teacher_dims=[1] * len(recipe.teachers), **regularizer_arguments(recipe, width)
            )
        except ValueError as error:
            return [f"regularizer: {error}"]
        if recipe.regularizer.steps_per_student_step > 1 and not any(p.requires_grad for p in regularizer.parameters()):
            faults.append(
                f"regularizer.steps_per_student_step is {recipe.regularizer.steps_per_student_step}, but '{name}' has"
                " nothing of its own to train. Set it to 1."
            )
    return faults


def _search_faults(recipe: Recipe) -> list[str]:
    """What of the section `search` makes no sense with the rest of an otherwise right recipe."""
    search, faults = recipe.search, []
    if search.gpus_per_trial and search.gpus_per_trial > 1 and search.gpus_per_trial % 1:
        faults.append(f"search.gpus_per_trial is {search.gpus_per_trial:g}; take a share of one GPU or whole GPUs.")
    if recipe.train.use_gpu and search.gpus_per_trial == 0:
        faults.append("search.gpus_per_trial is 0, and train.use_gpu asks for a GPU. Set one of them.")
    if recipe.train.use_gpu and search.workers_per_trial > 1 and search.gpus_per_trial not in (None, 1):
        faults.append("search.gpus_per_trial must be 1 with several workers per trial: each takes a GPU of its own.")

    def of_variant(variant: Recipe) -> list[str]:
        if "linear_probe" in {variant.student.model, recipe.student.model} and variant.student != recipe.student:
            return ["a linear probe cannot be searched beside other students; search it with a recipe of its own."]
        return [*students.faults(variant.student), *_regularizer_faults(variant), *_training_faults(variant)]

    return [*faults, *proposals.faults(recipe), *space_faults(recipe, of_variant)]


def _training_faults(recipe: Recipe) -> list[str]:
    settings = recipe.train
    faults = trackers.faults(recipe)
    parts = settings.num_workers * settings.accumulation_steps
    if settings.global_batch_size < settings.num_workers:
        faults.append(
            f"train.global_batch_size is {settings.global_batch_size}: it must be at least train.num_workers,"
            f" {settings.num_workers}."
        )
    elif settings.global_batch_size < parts:
        faults.append(
            f"train.global_batch_size is {settings.global_batch_size}: every worker must have a row for each of its parts,"
            f" train.num_workers * train.accumulation_steps = {parts} in all."
        )
    if (recipe.resources.min_workers or 0) > settings.num_workers:
        faults.append(
            f"resources.min_workers is {recipe.resources.min_workers}: it must be at most train.num_workers,"
            f" {settings.num_workers}."
        )
    if settings.precision == "fp16" and not settings.use_gpu:
        faults.append("train.precision=fp16 is for GPUs, a CPU is ten times slower with it. Take fp32 or bf16.")
    return faults
