"""How long the recipe will take, from a few batches of each teacher and steps of the student on this machine."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass

import numpy as np
import torch

from aft_ray.commands.first_recipe.look import Found
from aft_ray.datasets.base import Listing
from aft_ray.models.images import ImageTransform
from aft_ray.models.students import build_student
from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.printable import counted

TIMED, LONGEST_S = 3, 2.0
"""Batches and steps that are timed, after one that warms up, and when no further one begins."""
START_S = 4.0
"""Seconds of a training beside its steps: its process, its data and its evaluations."""


@dataclass(frozen=True)
class Cost:
    """Minutes of this machine: of all features, and of all trainings one after the other."""

    extraction: float
    trainings: float
    num_trainings: int

    def __str__(self) -> str:
        trainings = counted(self.num_trainings, "training")
        return f"features {_minutes(self.extraction)}, {trainings} {_minutes(self.trainings)} of one core"


def estimate(recipe: Recipe, found: Found, num_trainings: int) -> Cost:
    rows = sum(found.sizes[split] for split in recipe.extracted_splits())
    with redirect_stderr(io.StringIO()), _one_thread():  # libraries draw bars while they read weights
        seconds = sum(_teacher_s(recipe, index, found) for index in range(len(recipe.teachers)))
        step_s = _step_s(recipe, found.listing)
    return Cost(rows * seconds / 60, num_trainings * (recipe.train.steps * step_s + START_S) / 60, num_trainings)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Times one core, as trainings use it; on a busy machine several threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _minutes(minutes: float) -> str:
    return (
        "under a minute"
        if minutes < 1
        else f"about {minutes:.0f} min"
        if minutes < 90
        else f"about {minutes / 60:.1f} h"
    )


def _teacher_s(recipe: Recipe, index: int, found: Found) -> float:
    """Seconds of one sample."""
    config = recipe.teachers[index]
    transform = describe_teacher(config).transform
    teacher = build_teacher(config, torch.device("cpu"))
    texts = [text for _, text in found.examples if text is not None]
    pictures = [picture for picture, _ in found.examples if picture is not None]
    inputs = texts if transform is None else np.stack([transform(picture) for picture in pictures])
    with torch.inference_mode():
        return _timed(lambda: teacher(inputs)) / len(inputs)


def _step_s(recipe: Recipe, listing: Listing) -> float:
    """Seconds of one step of the student on made-up inputs of full length."""
    student = build_student(recipe.student, len(listing.classes))
    rows = recipe.train.global_batch_size
    inputs = [
        torch.zeros(rows, each.size, each.size, 3, dtype=torch.uint8)
        if isinstance(each, ImageTransform)
        else torch.ones(rows, each.length, dtype=torch.int32)  # type: ignore[attr-defined]
        for each in student.transforms
    ]

    def step() -> None:
        logits, _ = student(inputs[0] if len(inputs) == 1 else tuple(inputs))
        logits.logsumexp(1).sum().backward()

    return _timed(step)


def _timed(work: Callable[[], object]) -> float:
    """The fastest of a few: other work on the machine only slows."""
    work()
    seconds: list[float] = []
    while not seconds or (len(seconds) < TIMED and sum(seconds) < LONGEST_S):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
