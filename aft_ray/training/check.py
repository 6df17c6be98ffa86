"""Faults of a recipe that a training would meet, all at once and before anything starts."""

from __future__ import annotations

from collections.abc import Sequence

from aft_ray.models import students, teachers
from aft_ray.models.students.base import has_batch_norm
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.own_class import own_faults
from aft_ray.regularizers import REGULARIZERS, MadeUpData, fit_regularizer, regularizer_class
from aft_ray.training import trackers
from aft_ray.training.build import regularizer_arguments
from aft_ray.training.inputs.order import row_counts
from aft_ray.training.inputs.stores import class_faults
from aft_ray.training.towers import Towers, towers_of


def faults(recipe: Recipe) -> list[str]:
    """One line per fault of the student, the teachers that the training reads, the regularizer and the batch."""
    used = [teacher for teacher in recipe.teachers if teacher.name in recipe.used_teachers()]
    return [
        *teachers.faults(used),
        *students.faults(recipe.student),
        *regularizer_faults(recipe),
        *setting_faults(recipe),
        *class_faults(recipe, recipe.dataset.task),
    ]


def _way_out(recipe: Recipe) -> str:
    """Advice on options of another method, which stay in the section when `regularizer.name` alone is changed."""
    name, options = recipe.regularizer.name, {*recipe.regularizer.options}
    if not options - {*regularizer_class(name).options()} or not any(
        options <= {*m.options()} for m in REGULARIZERS.values()
    ):
        return ""
    whole = f"regularizer='{{name: {name}, beta: {recipe.regularizer.beta:g}}}'"
    return f" The recipe's section is for another method: {whole} replaces the whole section."


def has_two_towers(recipe: Recipe) -> bool:
    """Whether the student reads images and texts."""
    return not students.faults(recipe.student) and students.modality(recipe.student) == "image+text"


def method_faults(recipe: Recipe, method: str, combinations: Sequence[Sequence[str]] | None = None) -> list[str]:
    """Faults of `method` with the recipe's student and combinations of its teachers, all of them by default, whatever its
    options."""
    try:
        kind = regularizer_class(method)
    except ValueError as error:
        return [str(error)]
    if kind.needs_teachers and not recipe.teachers:
        return ["'teachers' is empty: every regularizer but 'none' needs at least one."]
    if kind.needs_teachers and "towers" not in kind.options() and has_two_towers(recipe):
        return _tower_faults(recipe, method, combinations or [recipe.teacher_names()])
    return []


def _tower_faults(recipe: Recipe, method: str, combinations: Sequence[Sequence[str]]) -> list[str]:
    """A line for the first combination that has teachers of both of the student's towers, which a method without the option
    `towers` cannot take. With the option `combine` it takes one teacher of each tower, in the towers' order."""
    modalities = _modalities(recipe)
    takes_two = "combine" in regularizer_class(method).options()
    for names in combinations if modalities else ():
        of_teachers = towers_of(recipe.student, names, modalities).of_teachers
        if of_teachers is None or (takes_two and of_teachers == (0, 1)):
            continue
        fitting = [name for name, other in REGULARIZERS.items() if other.needs_teachers and "towers" in other.options()]
        named = ", ".join(f"{name} ({modalities[name]})" for name in names)
        return [
            f"Regularizer '{method}' cannot compare both towers of '{recipe.student.model}' with their teachers at once, got"
            f" {named}. Take {', '.join(fitting)}, or teachers of images or of texts alone."
        ]
    return []


def _modalities(recipe: Recipe) -> dict[str, str]:
    """The input of each teacher by name; empty if a teacher has a fault of its own."""
    try:
        return {teacher.name: teachers.describe_teacher(teacher).modality for teacher in recipe.teachers}
    except InputError:
        return {}


def regularizer_faults(recipe: Recipe) -> list[str]:
    """Faults of the recipe's own regularizer: its name and its options. It is built here, fitted to made-up data."""
    name = recipe.regularizer.name
    if (found := method_faults(recipe, name)) or not recipe.teachers:
        return found
    modalities = _modalities(recipe) if has_two_towers(recipe) else {}
    names = recipe.teacher_names() if regularizer_class(name).needs_teachers else ()
    towers = towers_of(recipe.student, names, modalities) if modalities else Towers()
    width = (MadeUpData.student_dim,) * 2 if modalities else MadeUpData.student_dim
    try:
        data = MadeUpData(len(recipe.teachers), towers=towers.of_teachers)
        with own_faults(name, "regularizer.name"):
            regularizer = fit_regularizer(name, data, **regularizer_arguments(recipe, towers, width))
    except InputError as error:
        return error.faults
    except ValueError as error:
        return [f"regularizer: {error}{_way_out(recipe)}"]
    if recipe.regularizer.steps_per_student_step > 1 and not any(p.requires_grad for p in regularizer.parameters()):
        return [
            f"regularizer.steps_per_student_step is {recipe.regularizer.steps_per_student_step}, but '{name}' has"
            " nothing of its own to train. Set it to 1."
        ]
    return []


def setting_faults(recipe: Recipe) -> list[str]:
    """Faults of the section `train` beside `resources`."""
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
    elif _smallest_part(recipe) < 2 and _student_has_batch_norm(recipe):
        faults.append(
            f"train.global_batch_size is {settings.global_batch_size}: a part of a worker's rows would be a single row, and"
            f" {recipe.student.model} has batch norm, which needs two. Take a multiple of train.num_workers *"
            f" train.accumulation_steps = {parts}, at least {2 * parts}."
        )
    if (recipe.resources.min_workers or 0) > settings.num_workers:
        faults.append(
            f"resources.min_workers is {recipe.resources.min_workers}: it must be at most train.num_workers,"
            f" {settings.num_workers}."
        )
    if settings.num_warmup_steps > settings.steps:
        faults.append(
            f"train.warmup_steps is {settings.warmup_steps}: the training ends after {settings.steps} steps and never has its"
            " learning rate. Set train.warmup_steps below train.steps."
        )
    faults += _view_faults(recipe)
    if settings.precision == "fp16" and not settings.use_gpu:
        faults.append("train.precision=fp16 is for GPUs, a CPU is ten times slower with it. Take fp32 or bf16.")
    return faults


def _view_faults(recipe: Recipe) -> list[str]:
    """Faults of settings that not every student or task has a use for."""
    settings, faults = recipe.train, []
    if settings.augment != "none" and recipe.student.model == "linear_probe":
        faults.append(
            "train.augment is for students of pictures or texts; linear_probe reads features. Set it to none."
        )
    if settings.views > 1 and settings.augment == "none":
        faults.append("train.views has no use without train.augment: set augment to light or strong, or views to 1.")
    if settings.views > 1 and has_two_towers(recipe):
        faults.append("train.views is for students of pictures alone. Set it to 1.")
    if settings.layer_decay < 1 and has_two_towers(recipe):
        faults.append("train.layer_decay is for students with one tower. Set it to 1.")
    if settings.frozen_steps >= settings.steps:
        faults.append(
            f"train.frozen_steps is {settings.frozen_steps}: it must be less than train.steps, {settings.steps}."
        )
    return faults


def _smallest_part(recipe: Recipe) -> int:
    """The fewest rows that go through the student at once, as `Batch.split` cuts them, with any number of workers."""
    settings = recipe.train
    workers = range(recipe.resources.min_workers or settings.num_workers, settings.num_workers + 1)
    counts = {count for number in workers for count in row_counts(settings.global_batch_size, number)}
    sizes = {count: -(-count // settings.accumulation_steps) for count in counts if count}
    return min((count - size * ((count - 1) // size) for count, size in sizes.items()), default=0)


def _student_has_batch_norm(recipe: Recipe) -> bool:
    """Builds the student with random weights: no library says this of a model's name."""
    if students.faults(recipe.student) or recipe.student.model == "linear_probe":
        return False
    return has_batch_norm(students.build_student(recipe.student, num_outputs=2, for_inference=True))
