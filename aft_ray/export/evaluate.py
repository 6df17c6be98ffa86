"""evaluate: a finished run's student on one split, class by class, and what it says of every sample."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from aft_ray.cluster.progress import Progress
from aft_ray.export.scores import probabilities, scores_of
from aft_ray.export.student import Classifier, load_student
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.store.prefetch import prefetched
from aft_ray.store.schema import SPLITS, UNLABELED
from aft_ray.store.side_by_side import Store, open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.build import device_of
from aft_ray.training.inputs.batches import Samples, evaluation_batches, load_split
from aft_ray.training.inputs.streaming import stream_split

BATCH_SIZE = 512


def evaluate(recipe: Recipe, split: str = "test") -> dict[str, Any]:
    """Scores of `runs/<run>` over every labelled sample of `split`: those that `scores` has for its task.

    Written to the run's `evaluation-<split>.json`; what the student says of every sample, labelled or not, goes to
    `predictions-<split>.parquet`. Raises InputError if the split is unknown, the run has no student, or the samples are
    not of its task.
    """
    if split not in SPLITS:
        raise InputError(f"Unknown split '{split}'. Known: {', '.join(SPLITS)}.")
    workspace, device = Workspace.at(recipe.workspace), device_of(recipe.train)
    run = workspace.run(recipe.run)
    student = load_student(run)
    store = open_store(workspace, split, student.input_teachers)
    _check_samples(store.manifest, student, str(run))
    data = _load(recipe, store, student)
    scores, table = scores_of(student.task, len(student.classes)), Predictions(student)
    student.to(device)
    batches = list(evaluation_batches(data, BATCH_SIZE, rank=0, world_size=1))
    with torch.inference_mode(), Progress("evaluate", len(data), "samples") as progress:
        read = prefetched(lambda indices: data.rows(indices, ()), batches, threads=data.reader_threads)
        for indices, batch in zip(batches, read, strict=True):
            logits = student(batch.to(device).inputs).float().cpu().numpy()
            scores.add(logits, data.labels[indices])
            table.add(data.sample_ids[indices], data.labels[indices], logits)
            progress.advance(len(indices))
    run.write(f"predictions-{split}.parquet", table.close())
    result = {"split": split, "task": student.task, **scores.result(student.classes)}
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    run.write(f"evaluation-{split}.json", f"{{\n{lines}\n}}\n".encode())
    return result


def _check_samples(manifest: Mapping[str, Any], student: Classifier, run: str) -> None:
    """Raises InputError if a split's samples are not what the student was trained for."""
    task, modality = manifest.get("task", "classification"), manifest["modality"]
    if task != student.task:
        raise InputError(f"{run} was trained for {student.task}, the samples are for {task}.")
    if list(student.classes) != list(manifest["classes"]):
        raise InputError(
            f"{run} knows {len(student.classes)} classes, the samples have {len(manifest['classes'])} others."
        )
    for transform in student.transforms:
        if transform.column not in modality:
            raise InputError(f"{run} reads {transform.column}s, the samples are {modality}s.")


def _load(recipe: Recipe, store: Store, student: Classifier) -> Samples:
    teachers, transforms = student.input_teachers, student.transforms
    if recipe.train.streaming:
        return stream_split(store, teachers, transforms, world_size=1)
    return load_split(store, teachers, transforms, max_bad_samples=recipe.dataset.max_bad_samples)


class Predictions:
    """The Parquet table of a student's predictions, in memory until `close`.

    Columns: sample_id; label and predicted, both int64, or C values each unless the task is classification; and, unless it
    is regression, probabilities, C float32. The names of the classes are in the schema's metadata.
    """

    def __init__(self, student: Classifier) -> None:
        self.task, width = student.task, len(student.classes)
        numbers = pa.list_(pa.float32(), width)
        values = {"classification": pa.int64(), "multilabel": pa.list_(pa.bool_(), width), "regression": numbers}
        label = pa.int64() if self.task == "classification" else numbers
        columns = {"sample_id": pa.string(), "label": label, "predicted": values[self.task]}
        if self.task != "regression":
            columns["probabilities"] = numbers
        self.schema = pa.schema(columns.items(), metadata={"classes": json.dumps(list(student.classes))})
        self.stream = pa.BufferOutputStream()
        self.writer = pq.ParquetWriter(self.stream, self.schema)

    def add(self, sample_ids: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
        missing = labels == UNLABELED if self.task == "classification" else np.isnan(labels)
        width = logits.shape[1]
        columns = [pa.array(sample_ids.tolist(), pa.string())]
        if self.task == "classification":
            columns += [pa.array(labels, mask=missing), pa.array(logits.argmax(1))]
        else:
            columns.append(_lists(pa.array(labels.ravel(), mask=missing.ravel()), width))
            columns.append(_lists(pa.array((logits > 0 if self.task == "multilabel" else logits).ravel()), width))
        if self.task != "regression":
            columns.append(_lists(pa.array(probabilities(self.task, logits).ravel()), width))
        self.writer.write_table(pa.table(columns, schema=self.schema))

    def close(self) -> pa.Buffer:
        self.writer.close()
        return self.stream.getvalue()


def _lists(values: pa.Array, width: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(values, width)
