"""The batches of one worker, made ahead by threads, and a check of their losses."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from aft_ray.models.views import all_numbers
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.model import view_name
from aft_ray.store.files import Directory
from aft_ray.store.prefetch import prefetched
from aft_ray.training.augment import augmentation_of
from aft_ray.training.inputs.batch import Batch
from aft_ray.training.inputs.batches import Samples
from aft_ray.training.inputs.order import BatchOrder, worker_rows

VIEWS = 8
"""Keeps the choice of views apart from other random numbers."""
LOOK_EVERY = 50
NAMED = 8


@dataclass(frozen=True)
class StepBatches:
    """This worker's rows of a step: a batch for the student, and one for each of the regularizer's own steps."""

    student: Batch
    regularizer: list[Batch]


class Feed:
    """The batches of a worker, a function of (seed, step)."""

    def __init__(
        self, recipe: Recipe, train: Samples, teachers: Sequence[str], device: torch.device, rank: int, world_size: int
    ) -> None:
        """teachers: whose features the regularizer takes; without any, only labelled samples are drawn."""
        settings = recipe.train
        self.train, self.teachers, self.device = train, teachers, device
        self.rank, self.world_size = rank, world_size
        self.augmentation = augmentation_of(recipe)
        self.num_views = settings.views if teachers else 1
        self.seed = settings.seed
        self.num_steps = settings.steps
        self.own_steps = recipe.regularizer.steps_per_student_step - 1
        self.orders = [
            BatchOrder(
                train.labels,
                settings.global_batch_size,
                settings.labeled_fraction,
                settings.seed,
                shuffle=train.shuffle,
                use=use,
            )
            for use in range(2)
        ]
        self.num_rows = settings.global_batch_size if teachers else self.orders[0].num_labeled

    def indices(self, step: int) -> np.ndarray:
        """The student's global batch of step `step`."""
        return self.orders[0].all(step) if self.teachers else self.orders[0].labeled(step)

    def steps(self, start: int) -> Generator[StepBatches]:
        """The batches of step `start` and all after it, on the device."""
        steps = range(start, self.num_steps)
        for step, batches in zip(steps, prefetched(self._rows, steps, threads=self.train.reader_threads), strict=True):
            student, *others = self._augmented([batch.to(self.device) for batch in batches], step)
            yield StepBatches(student, others)

    def _augmented(self, batches: list[Batch], step: int) -> list[Batch]:
        """The student's batch of a step, then the regularizer's, each changed in its own way."""
        if self.augmentation is None:
            return batches
        uses = len(batches)
        rows = worker_rows(np.arange(self.num_rows), self.rank, self.world_size)
        return [self.augmentation(batch, step * uses + use, rows) for use, batch in enumerate(batches)]

    def _rows(self, step: int) -> list[Batch]:
        own = [self.orders[1].all(step * self.own_steps + number) for number in range(self.own_steps)]
        uses = (self.indices(step), *own)
        batches = [self._batch(indices, step * len(uses) + use) for use, indices in enumerate(uses)]
        return [batch.map(torch.Tensor.pin_memory) for batch in batches] if self.device.type == "cuda" else batches

    def _batch(self, indices: np.ndarray, draw: int) -> Batch:
        """This worker's rows of a global batch, each with the features of one view; the same at each call with `draw`."""
        own = worker_rows(indices, self.rank, self.world_size)
        if self.num_views == 1:
            return self.train.rows(own, self.teachers)
        random = np.random.default_rng((self.seed, VIEWS, draw))
        chosen = worker_rows(random.integers(self.num_views, size=len(indices)), self.rank, self.world_size)
        batch = self.train.rows(own, self.teachers)
        features = batch.teacher_features.numpy()
        for number in range(1, self.num_views):
            rows, names = chosen == number, [view_name(teacher, number) for teacher in self.teachers]
            features[rows] = self.train.features_of(own[rows], names)
        numbers = all_numbers(self.train.sample_ids[own], chosen)
        return replace(batch, views=torch.from_numpy(numbers))


class LossWatch:
    """Finds the first step whose loss is not finite, without waiting for a GPU at every step."""

    def __init__(self, feed: Feed, directory: Directory) -> None:
        self.feed, self.directory = feed, directory
        self.seen: list[tuple[int, torch.Tensor]] = []
        self.look_every = LOOK_EVERY if feed.device.type == "cuda" else 1

    def see(self, step: int, loss: torch.Tensor, *, good_step: int) -> None:
        """The loss of step `step`, on the feed's device; the rest as in `check`."""
        self.seen.append((step, loss.detach()))
        if len(self.seen) == self.look_every:
            self.check(good_step=good_step)

    def check(self, *, good_step: int) -> None:
        """Raises InputError if a loss so far was not finite. good_step: of the last evaluation, 0 without any."""
        seen, self.seen = self.seen, []
        finite = torch.stack([loss for _, loss in seen]).isfinite().tolist() if seen else []
        if all(finite):
            return
        first = seen[finite.index(False)][0]
        ids = self.feed.train.sample_ids[self.feed.indices(first)].tolist()
        if self.feed.rank == 0:
            self.directory.write("bad_batch.json", json.dumps({"step": first + 1, "sample_ids": ids}).encode())
        good = f"The last good evaluation was at step {good_step}." if good_step else "Nothing was evaluated before."
        raise InputError(
            f"The loss is not finite at step {first + 1}. Its batch has samples {', '.join(ids[:NAMED])}, ..."
            f" (all {len(ids)}: {self.directory}/bad_batch.json). {good} Lower train.learning_rate or regularizer.beta."
        )
