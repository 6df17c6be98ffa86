"""Builds the student and the regularizer of a run."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import torch

from aft_ray.models.students import Student, build_student
from aft_ray.models.students.base import has_batch_norm
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TrainConfig
from aft_ray.regularizers import Regularizer, build_regularizer, fit_regularizer, regularizer_class
from aft_ray.store.schema import UNLABELED
from aft_ray.store.workspace import Workspace
from aft_ray.training.fitting import TrainingData
from aft_ray.training.inputs.batches import Samples
from aft_ray.training.inputs.data import Data
from aft_ray.training.task import TransferTask
from aft_ray.training.towers import Towers, towers_of

logger = logging.getLogger(__name__)
ANY, DETERMINISTIC = 0, 1
"""Modes of torch for operations: any algorithm; the deterministic one, and a warning where there is none."""


def regularizer_arguments(recipe: Recipe, towers: Towers, student_dim: int | tuple[int, ...]) -> dict[str, Any]:
    """Arguments of the recipe's regularizer for a student of width `student_dim`, one width per tower."""
    combine = {"combine": "product"} if towers.of_teachers else {}
    return {"student_dim": towers.read(student_dim), **combine, **recipe.regularizer.options}


def build_task(recipe: Recipe, data: Data, device: torch.device, *, weights_follow: bool) -> TransferTask:
    """Student and regularizer on `device`, with initial weights that depend on the recipe's seed and data alone.

    weights_follow: a checkpoint will be loaded over them.
    """
    torch.manual_seed(recipe.train.seed)
    train = data.train
    input_dims = [train.feature_dims[name] for name in train.input_teachers]
    student = build_student(recipe.student, len(train.classes), teacher_dims=input_dims, for_inference=weights_follow)
    needs_teachers = regularizer_class(recipe.regularizer.name).needs_teachers
    towers = towers_of(recipe.student, recipe.teacher_names() if needs_teachers else (), train.modalities)
    regularizer = _fitted_regularizer(recipe, data, student, towers, device, weights_follow=weights_follow)
    facts = regularizer.facts()
    if regularizer.is_off:
        logger.warning(
            "Regularizer '%s' finds nothing of use in the teachers' features: this is standard transfer.",
            recipe.regularizer.name,
        )
        towers = towers_of(recipe.student, (), train.modalities)
        width = towers.read(student.feature_dim)
        regularizer = build_regularizer("none", student_dim=width, teacher_dims=())
    settings = recipe.train
    task = TransferTask(
        student,
        regularizer,
        recipe.regularizer.beta,
        teachers=recipe.teacher_names() if regularizer.needs_teachers else (),
        towers=towers,
        facts=facts,
        kind=train.task,
        label_smoothing=settings.label_smoothing,
        class_weights=_class_weights(train) if settings.class_weights == "balanced" else None,
        precision=settings.precision,
    )
    if settings.accumulation_steps > 1 and has_batch_norm(student):
        logger.warning("The student has batch norm: with train.accumulation_steps it normalises each part by itself.")
    if settings.compile:
        task.student.compile()
    return task.to(device)


def _fitted_regularizer(
    recipe: Recipe, data: Data, student: Student, towers: Towers, device: torch.device, *, weights_follow: bool
) -> Regularizer:
    """The recipe's regularizer, fitted to the data if its method needs that."""
    needs_teachers = regularizer_class(recipe.regularizer.name).needs_teachers
    fitting = TrainingData(
        student=student,
        reads=towers,
        train=data.train,
        validation=data.validation,
        teachers=recipe.teacher_names() if needs_teachers else (),
        device=device,
        weights_follow=weights_follow,
        workspace=Workspace.at(recipe.workspace) if data.origin else None,
        made_of=data.origin,
    )
    return fit_regularizer(
        recipe.regularizer.name, fitting, **regularizer_arguments(recipe, towers, student.feature_dim)
    )


def _class_weights(train: Samples) -> torch.Tensor:
    """(C,) float32: inverse to each class's number of labelled samples, of mean 1 over the labelled samples."""
    counts = np.bincount(train.labels[train.labels != UNLABELED], minlength=len(train.classes))
    weights = counts.sum() / (max(1, np.count_nonzero(counts)) * np.maximum(counts, 1))
    return torch.from_numpy(weights.astype(np.float32))


def device_of(settings: TrainConfig) -> torch.device:
    """Raises InputError if the recipe wants a GPU and there is none."""
    if not settings.use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError("train.use_gpu is true, and torch finds no GPU here. Set train.use_gpu=false.")
    return torch.device("cuda", torch.cuda.current_device())


def choose_algorithms(settings: TrainConfig) -> None:
    """Enables deterministic algorithms in this process; an operation without one warns once."""
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    set_deterministic(DETERMINISTIC if settings.deterministic else ANY, settings.compile)
    torch.backends.cudnn.deterministic = settings.deterministic


def set_deterministic(mode: int, compiled: bool) -> None:
    """mode: as of `torch.get_deterministic_debug_mode`. compiled: whether a model is compiled, so that the compiler must know."""
    torch.set_deterministic_debug_mode(mode)
    if compiled:  # this imports the compiler, two seconds, which only a compiled model is worth
        torch.use_deterministic_algorithms(mode != ANY, warn_only=mode == DETERMINISTIC)
