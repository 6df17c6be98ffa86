"""Predictions through one Ray Data pipeline.

parts of the list -> read and decode (actors on CPUs) -> student (actors), which write one file for each part
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from aft_ray.cluster.attempts import Watch
from aft_ray.cluster.gang import Gang
from aft_ray.cluster.pipelines import attempts_elsewhere, run_pipeline
from aft_ray.datasets.unlabelled import DecodeRows
from aft_ray.export.predict_part import PredictPart
from aft_ray.export.prediction_files import Staged
from aft_ray.export.student import load_student
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory

if TYPE_CHECKING:
    from ray.data import Dataset


@dataclass(frozen=True)
class PredictInCluster:
    """The work on parts from `Unseen.rows`. It travels to other processes, without the student's weights.

    root, transforms: of `DecodeRows`.
    """

    recipe: Recipe
    run: Directory
    root: str
    transforms: tuple[Any, ...]
    new: Staged
    all_probabilities: bool

    def work(self, parts: Collection[dict[str, Any]], take: Callable[[dict[str, Any]], None]) -> None:
        """Passes the result of each part to `take`, on the cluster that runs. parts: a view that shrinks with each call."""
        settings = self.recipe.train
        pool = _Pool(min(settings.num_workers, len(parts)), float(settings.use_gpu))
        with attempts_elsewhere() as attempts:
            # Each quarantined sample has a row that says why, so there may be any number.
            watched = partial(Watch, attempts, max_bad_samples=sys.maxsize)
            run_pipeline([pool], self.recipe.resources, parts, partial(self._pipeline, watched), take)

    def _pipeline(self, watched: Callable[..., Watch], rows: list[dict[str, Any]], gang: Gang) -> Dataset:
        import ray.data

        decode = (self.root, self.transforms, watched(work="decoding"))
        predict = (self.run, self.new, self.all_probabilities, self.recipe.train.use_gpu, watched(work="the student"))
        return (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(DecodeRows, fn_constructor_args=decode, **gang.stage(0, len(rows)))
            .map(_Actor, fn_constructor_args=predict, **gang.stage(1, len(rows)))
        )


@dataclass(frozen=True)
class _Pool:
    """The students' actors, as an ActorPool."""

    num_actors: int
    num_gpus: float


class _Actor:
    """PredictPart with a student that is loaded here."""

    def __init__(self, run: Directory, new: Staged, all_probabilities: bool, use_gpu: bool, watch: Watch) -> None:
        self.fault: InputError | None = None
        try:
            device = torch.device("cuda" if use_gpu else "cpu")
            self.predict = PredictPart(load_student(run), device, new, all_probabilities, watch)
        except InputError as error:
            self.fault = error  # raised later: if the constructor raised, Ray would report only a dead actor

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        return self.predict(part)
