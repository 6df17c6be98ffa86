"""Predictions through one Ray Data pipeline.

parts of the list -> read and decode (actors on CPUs) -> student (actors), which write one file for each part
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from aft_ray.cluster.attempts import Watch
from aft_ray.cluster.crew import Stage
from aft_ray.cluster.pipelines import attempts_elsewhere, run_pipeline
from aft_ray.datasets.unlabelled import DecodeRows
from aft_ray.export.predict_part import PredictPart
from aft_ray.export.prediction_files import Staged
from aft_ray.export.student import load_student
from aft_ray.recipe.config import Recipe
from aft_ray.store.files import Directory


@dataclass(frozen=True)
class PredictInCluster:
    """The work on parts from `Unseen.rows`, in other processes, each of which loads the student.

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
        num_actors = min(settings.num_workers, len(parts))
        pool = _Pool(num_actors, num_actors, float(settings.use_gpu))
        with attempts_elsewhere() as attempts:
            # Each quarantined sample has a row that says why, so there may be any number.
            watched = partial(Watch, attempts, max_bad_samples=sys.maxsize)
            decode = (self.root, self.transforms, watched(work="decoding"))
            predict = (self.run, self.new, self.all_probabilities, settings.use_gpu, watched(work="the student"))
            stages = [Stage(DecodeRows, decode), Stage(_predict_part, predict)]
            run_pipeline(stages, [pool], self.recipe.resources, parts, take)


@dataclass(frozen=True)
class _Pool:
    """The students' actors, as an ActorPool."""

    min_actors: int
    max_actors: int
    num_gpus: float


def _predict_part(run: Directory, new: Staged, all_probabilities: bool, use_gpu: bool, watch: Watch) -> PredictPart:
    """With a student that is loaded here."""
    return PredictPart(load_student(run), torch.device("cuda" if use_gpu else "cpu"), new, all_probabilities, watch)
