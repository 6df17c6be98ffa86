"""predict: a finished run's student on files and texts that have no labels.

The samples are worked on in parts, each of which becomes one file with the same content wherever it is made. This process
works on the first parts for about as long as a cluster takes to start; the others go through Ray Data. So a small input needs
no cluster, and a large one loses no more than that time. With RAY_ADDRESS all parts go to the cluster.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.cluster.progress import Progress
from aft_ray.datasets import row_form
from aft_ray.datasets.unlabelled import DecodeRows, Unseen, list_unseen
from aft_ray.export.predict_part import PredictPart
from aft_ray.export.prediction_files import SUMMARY, Staged, output_directory, staged
from aft_ray.export.run_files import trained_on
from aft_ray.export.student import Classifier, load_student
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.store.sample_recipe import check_sample_recipe
from aft_ray.store.unknown_files import json_object
from aft_ray.store.workspace import Workspace
from aft_ray.training.build import device_of

if TYPE_CHECKING:
    from aft_ray.export.predict_in_cluster import PredictInCluster

PART_SIZE = 256
"""Samples that travel through the pipeline together and share a file: 39 MB of 224 pixel images."""
HERE_S = 10.0
"""How long this process works on parts before a cluster starts: about as long as the start takes."""


def predict(
    recipe: Recipe, path: str, *, output: str | None = None, all_probabilities: bool = False, part_size: int = PART_SIZE
) -> dict[str, Any]:
    """Predictions for the samples at `path`: `open_prediction` and its `make` in one call, on a cluster that runs."""
    opened = open_prediction(recipe, path, output=output)
    return opened.make(nullcontext, here_s=0, all_probabilities=all_probabilities, part_size=part_size)


def open_prediction(recipe: Recipe, path: str, *, output: str | None = None) -> Prediction:
    """Predictions to make for the samples at `path` (see `unlabelled.list_unseen`) with the student of `runs/<run>`.

    They go to `output`, by default `<workspace>/predictions/<run>/`, and replace an earlier call's when all are there.
    Raises InputError if there are no samples or no student, if the student cannot read the samples, or if the output holds
    files which are not ours.
    """
    workspace = Workspace.at(recipe.workspace)
    run = workspace.run(recipe.run)
    student = load_student(run)
    if not student.transforms:
        raise InputError(f"{run} is a linear probe: it reads teachers' features, not files.")
    check_sample_recipe(recipe.dataset, workspace.samples("train").manifest() or {}, workspace)
    place = output_directory(workspace, recipe.run, output, path)
    columns = [transform.column for transform in student.transforms]
    root = recipe.dataset.columns.image_root
    unseen = list_unseen(path, columns, row_form(trained_on(student.facts, recipe)), image_root=root)
    return Prediction(recipe, run, student, path, unseen, place)


@dataclass(frozen=True)
class Prediction:
    """A checked prediction. source: of `unseen`. place: the directory of the predictions."""

    recipe: Recipe
    run: Directory
    student: Classifier
    source: str
    unseen: Unseen
    place: Directory

    @property
    def earlier_source(self) -> str | None:
        """Where the samples come from whose predictions are in the directory, and are replaced."""
        return json_object(self.place, SUMMARY).get("path")

    def make(
        self,
        cluster: Callable[[], AbstractContextManager[None]],
        *,
        here_s: float = HERE_S,
        all_probabilities: bool = False,
        part_size: int = PART_SIZE,
    ) -> dict[str, Any]:
        """Writes the predictions as Parquet parts with the columns of `predictions`.

        cluster: starts or joins a cluster; not called if this process has done all parts after `here_s` seconds.
        Returns the content of `predictions.json`: `output`, its `files` in the order of the samples, `num_samples`,
        `num_errors` and `counts` by class.
        """
        counts = dict.fromkeys(self.student.classes, 0) if self.student.task != "regression" else {}
        summary: dict[str, Any] = {"run": str(self.run), "path": self.source, "output": str(self.place)}
        summary |= {"num_samples": 0, "num_errors": 0, "counts": counts}
        parts = {part["shard"]: part for part in self.unseen.rows(part_size)}
        hashes: dict[int, str] = {}

        def take(row: dict[str, Any]) -> None:
            result = row["result"]
            for key in ("num_samples", "num_errors"):
                summary[key] += result[key]
            for name, count in result["counts"].items():
                counts[name] += count
            hashes[row["shard"]] = result["sha256"]
            del parts[row["shard"]]
            progress.advance(result["num_samples"], f"{summary['num_errors']} unreadable")

        with (
            staged(Workspace.at(self.recipe.workspace), self.place) as new,
            Progress("predict", self.unseen.table.num_rows, "samples") as progress,
        ):
            if here_s and not new.follows_a_death:
                self._work_here(list(parts.values()), new, all_probabilities, time.monotonic() + here_s, take)
            if parts:
                with cluster():
                    self._elsewhere(new, all_probabilities).work(parts.values(), take)
            return new.publish(hashes, summary)

    def _work_here(
        self,
        parts: Sequence[dict[str, Any]],
        new: Staged,
        all_probabilities: bool,
        until: float,
        take: Callable[[dict[str, Any]], None],
    ) -> None:
        """Works on parts in this process until the monotonic time `until`, at least on one, and passes results to `take`."""
        watched = partial(Watch, AttemptsHere(), max_bad_samples=sys.maxsize)
        decode = DecodeRows(self.unseen.root, self.student.transforms, watched(work="decoding"))
        device = device_of(self.recipe.train)
        predict = PredictPart(self.student, device, new, all_probabilities, watched(work="the student"))
        new.mark_begun()
        for part in parts:
            take(predict(decode(part)))
            if time.monotonic() > until:
                return

    def _elsewhere(self, new: Staged, all_probabilities: bool) -> PredictInCluster:
        from aft_ray.export.predict_in_cluster import PredictInCluster  # imports Ray

        return PredictInCluster(
            self.recipe, self.run, self.unseen.root, self.student.transforms, new, all_probabilities
        )
