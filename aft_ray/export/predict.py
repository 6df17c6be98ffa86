"""predict: a finished run's student on files and texts that have no labels, through one Ray Data pipeline.

    parts of the list -> read and decode (actors on CPUs) -> student (actors), which write one file for each part

A part's file holds the same samples in the same order whenever it is made.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from aft_ray.cluster.attempts import Attempts, Watch
from aft_ray.cluster.gang import Gang
from aft_ray.cluster.pipelines import attempts_elsewhere, run_pipeline
from aft_ray.cluster.progress import Progress
from aft_ray.datasets import row_form
from aft_ray.datasets.unlabelled import DecodeRows, Unseen, list_unseen
from aft_ray.export.prediction_files import Staged, output_directory, staged
from aft_ray.export.predictions import PredictionTable
from aft_ray.export.run_files import trained_on
from aft_ray.export.student import Classifier, load_student
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.store.sample_recipe import check_sample_recipe
from aft_ray.store.workspace import Workspace

if TYPE_CHECKING:
    from ray.data import Dataset

PART_SIZE = 256
"""Samples that travel through the pipeline together and share a file: 39 MB of 224 pixel images."""
BATCH_SIZE = 64


def predict(
    recipe: Recipe, path: str, *, output: str | None = None, all_probabilities: bool = False, part_size: int = PART_SIZE
) -> dict[str, Any]:
    """Predictions for the samples at `path`: `open_prediction` and its `make` in one call, on a cluster that runs."""
    opened = open_prediction(recipe, path, output=output)
    return opened.make(all_probabilities=all_probabilities, part_size=part_size)


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
    """A checked prediction, made before a cluster starts. source: of `unseen`. place: the directory of the predictions."""

    recipe: Recipe
    run: Directory
    student: Classifier
    source: str
    unseen: Unseen
    place: Directory

    def make(self, *, all_probabilities: bool = False, part_size: int = PART_SIZE) -> dict[str, Any]:
        """Writes the predictions as Parquet parts with the columns of `predictions`.

        Returns the content of `predictions.json`: `output`, its `files` in the order of the samples, `num_samples`,
        `num_errors` and `counts` by class.
        """
        counts = dict.fromkeys(self.student.classes, 0) if self.student.task != "regression" else {}
        summary: dict[str, Any] = {"run": str(self.run), "path": self.source, "output": str(self.place)}
        summary |= {"num_samples": 0, "num_errors": 0, "counts": counts}
        parts = {part["shard"]: part for part in self.unseen.rows(part_size)}
        num_parts, hashes = len(parts), {}

        def take(row: dict[str, Any]) -> None:
            result = json.loads(row["result"])
            for key in ("num_samples", "num_errors"):
                summary[key] += result[key]
            for name, count in result["counts"].items():
                counts[name] += count
            hashes[row["shard"]] = result["sha256"]
            del parts[row["shard"]]
            progress.advance(result["num_samples"], f"{summary['num_errors']} unreadable")

        pool = _Pool(min(self.recipe.train.num_workers, num_parts), float(self.recipe.train.use_gpu))
        with (
            staged(Workspace.at(self.recipe.workspace), self.place) as new,
            attempts_elsewhere() as attempts,
            Progress("predict", self.unseen.table.num_rows, "samples") as progress,
        ):
            build = self._pipeline(new, attempts, all_probabilities)
            run_pipeline([pool], self.recipe.resources, parts.values(), build, take)
            return new.publish(hashes, summary)

    def _pipeline(
        self, new: Staged, attempts: Attempts, all_probabilities: bool
    ) -> Callable[[list[dict[str, Any]], Gang], Dataset]:
        """Makes the pipeline for some parts. It travels to another process, without the student's weights."""
        run, root, transforms, use_gpu = self.run, self.unseen.root, self.student.transforms, self.recipe.train.use_gpu

        def build(rows: list[dict[str, Any]], gang: Gang) -> Dataset:
            import ray.data

            watched = partial(
                Watch, attempts, max_bad_samples=sys.maxsize
            )  # each quarantined sample has a row that says why
            return (
                ray.data.from_items(rows, override_num_blocks=len(rows))
                .map(
                    DecodeRows,
                    fn_constructor_args=(root, transforms, watched(work="decoding")),
                    **gang.stage(0, len(rows)),
                )
                .map(
                    PredictPart,
                    fn_constructor_args=(run, new, all_probabilities, use_gpu, watched(work="the student")),
                    **gang.stage(1, len(rows)),
                )
            )

        return build


@dataclass(frozen=True)
class _Pool:
    """The students' actors, as an ActorPool."""

    num_actors: int
    num_gpus: float


class PredictPart:
    """The student on one device: predicts the samples of a part that could be read, and writes the part's file."""

    def __init__(self, run: Directory, new: Staged, all_probabilities: bool, use_gpu: bool, watch: Watch) -> None:
        self.new, self.watch = new, watch
        self.fault: InputError | None = None
        try:
            self.device = torch.device("cuda" if use_gpu else "cpu")
            self.student = load_student(run).to(self.device)
            self.form = PredictionTable(self.student.task, self.student.classes, all_probabilities, with_errors=True)
        except InputError as error:
            self.fault = error  # raised later: if the constructor raised, Ray would report only a dead actor

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        errors = {int(number): reason for number, reason in json.loads(part["errors"]).items()}
        inputs = [np.asarray(part[f"inputs{k}"]) for k in range(len(self.student.transforms))]
        place = {number: k for k, number in enumerate(n for n in range(len(part["id"])) if n not in errors)}

        def alone(number: int | None) -> None:
            self._logits([np.zeros_like(a[:1]) if number is None else a[[place[number]]] for a in inputs])

        name, ids = f"part {part['shard']}", list(part["id"])
        quarantined = {number: {"sample_id": ids[number], "reason": reason} for number, reason in errors.items()}
        for number in self.watch.begin(name, ids, quarantined, alone):
            errors[number] = quarantined[number]["reason"]
        good = [number for number in place if number not in errors]
        logits = self._logits([array[[place[number] for number in good]] for array in inputs])
        table = self.form.rows(ids, logits, errors=errors)
        sha256 = self.new.write(int(part["shard"]), table)
        self.watch.done(name)
        result = {"num_samples": len(table), "num_errors": len(errors), "counts": _counts(table), "sha256": sha256}
        return {"shard": int(part["shard"]), "result": json.dumps(result)}

    @torch.inference_mode()
    def _logits(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """(n, C) float32."""
        blocks = [np.empty((0, len(self.student.classes)), np.float32)]
        for start in range(0, len(inputs[0]), BATCH_SIZE):
            tensors = tuple(torch.tensor(array[start : start + BATCH_SIZE], device=self.device) for array in inputs)
            blocks.append(self.student(tensors if len(tensors) > 1 else tensors[0]).float().cpu().numpy())
        return np.concatenate(blocks)


def _counts(table: pa.Table) -> dict[str, int]:
    """How often each class was predicted; empty for numbers."""
    predicted = table["predicted"].combine_chunks()
    if pa.types.is_list(predicted.type):
        predicted = predicted.flatten()
    return dict(Counter(predicted.drop_null().to_pylist())) if pa.types.is_string(predicted.type) else {}
