"""evaluate: the scores of a finished run's student on one split, and its prediction for every sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from aft_ray.cluster.progress import Progress
from aft_ray.export.predictions import PredictionTable
from aft_ray.export.scores import scores_of
from aft_ray.export.student import Classifier, load_student
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.json_files import sealed
from aft_ray.store.files import Directory
from aft_ray.store.prefetch import prefetched
from aft_ray.store.sample_recipe import check_sample_recipe
from aft_ray.store.schema import SPLITS
from aft_ray.store.side_by_side import Store, open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.build import device_of
from aft_ray.training.inputs.batches import Samples, evaluation_batches, load_split
from aft_ray.training.inputs.streaming import stream_split
from aft_ray.training.owner import marked
from aft_ray.training.runs import RunDirectory

BATCH_SIZE = 512


def evaluate(recipe: Recipe, split: str = "test", *, all_probabilities: bool = False) -> dict[str, Any]:
    """The scores of `runs/<run>` on the labelled samples of `split` (see `scores`), also written to the run's
    `evaluation-<split>.json`.

    Writes its predictions for all samples to `predictions-<split>.parquet` (see `predictions`); `all_probabilities` adds
    the probabilities of all classes.
    Raises InputError if the split is unknown, the run has no student, or the samples are not of its task.
    """
    if split not in SPLITS:
        raise InputError(f"Unknown split '{split}'. Known: {', '.join(SPLITS)}.")
    workspace, device = Workspace.at(recipe.workspace), device_of(recipe.train)
    run = workspace.run(recipe.run)
    student = load_student(run)
    store = open_store(workspace, split, student.input_teachers)
    check_sample_recipe(recipe.dataset, store.manifest, workspace)
    _check_samples(store.manifest, student, str(run))
    data = _load(recipe, run, store, student)
    scores = scores_of(student.task, len(student.classes))
    form = PredictionTable(student.task, student.classes, all_probabilities, with_labels=True)
    stream = pa.BufferOutputStream()
    student.to(device)
    batches = list(evaluation_batches(data, BATCH_SIZE, rank=0, world_size=1))
    with (
        torch.inference_mode(),
        Progress("evaluate", len(data), "samples") as progress,
        pq.ParquetWriter(stream, form.schema) as table,
    ):
        read = prefetched(lambda indices: data.rows(indices, ()), batches, threads=data.reader_threads)
        for indices, batch in zip(batches, read, strict=True):
            logits = student(batch.to(device).inputs).float().cpu().numpy()
            labels = data.labels[indices]
            scores.add(logits, labels)
            table.write_table(form.rows(data.sample_ids[indices].tolist(), logits, labels=labels))
            progress.advance(len(indices))
    name, content = f"predictions-{split}.parquet", stream.getvalue()
    run.write(name, content)
    result = {"split": split, "task": student.task, **scores.result(student.classes)}
    written = marked({**result, "sha256": {name: hashlib.sha256(content).hexdigest()}}, RunDirectory(run).run_id)
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in written.items())
    run.write(f"evaluation-{split}.json", sealed(f"{{\n{lines}\n}}"))
    return result


def _check_samples(manifest: Mapping[str, Any], student: Classifier, run: str) -> None:
    """Raises InputError if a split has another task, other classes or another modality than the student."""
    task, modality = manifest.get("task", "classification"), manifest["modality"]
    if task != student.task:
        raise InputError(f"{run} was trained for {student.task}, the samples are for {task}. Name another run=NAME.")
    if list(student.classes) != list(manifest["classes"]):
        raise InputError(
            f"{run} was trained with {len(student.classes)} classes, the samples have {len(manifest['classes'])}, and the"
            " lists differ. Evaluate it in the workspace that it was trained in."
        )
    for transform in student.transforms:
        if transform.column not in modality:
            raise InputError(f"{run} reads {transform.column}s, the samples are {modality}s. Name another run=NAME.")


def _load(recipe: Recipe, run: Directory, store: Store, student: Classifier) -> Samples:
    """The split in memory, or streamed where the recipe says so, or where it leaves that open and the training was."""
    teachers, transforms = student.input_teachers, student.transforms
    streaming = RunDirectory(run).is_streamed if recipe.train.streaming is None else recipe.train.streaming
    if streaming:
        return stream_split(store, teachers, transforms, world_size=1)
    return load_split(store, teachers, transforms, max_bad_samples=recipe.dataset.max_bad_samples)
