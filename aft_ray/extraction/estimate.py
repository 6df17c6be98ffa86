"""plan: estimates the work and cost of an extraction from a short trial of every teacher; writes nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from aft_ray.cluster.gang import share_of
from aft_ray.cluster.growth import actors_with_room
from aft_ray.cluster.nodes import nodes_resources
from aft_ray.cluster.waves import Wave, waves
from aft_ray.datasets import list_samples
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.pairs import pictures_of, side_by_side
from aft_ray.datasets.shard_writing import samples_table
from aft_ray.extraction.features import embed
from aft_ray.extraction.plan import plan_extraction
from aft_ray.extraction.reading import make_inputs
from aft_ray.models.teachers import TeacherDescription, build_teacher, describe_teacher
from aft_ray.models.teachers.device import device_of
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.workspace import Workspace

TRIAL_S = 3.0
"""Seconds for which each teacher is timed after its warm-up."""
TRIED = 64
"""Samples to read for the trial."""


@dataclass(frozen=True)
class TeacherEstimate:
    """One teacher's share of an extraction.

    shards_missing: None before the samples are prepared. samples: samples left to compute; pairs of one picture count once for
    a teacher of pictures. crop_bytes: size of a decoded picture, 0 for text. feature_bytes: size of all features when
    complete. samples_per_s: speed of one actor. load_s: seconds until an actor is ready. hours: time of all its actors
    together. gpu_hours: hours times the GPUs that they hold.
    """

    name: str
    feature_dim: int
    shards_missing: int | None
    samples: int
    crop_bytes: int
    feature_bytes: int
    samples_per_s: float
    load_s: float
    hours: float
    gpu_hours: float


@dataclass(frozen=True)
class Estimate:
    """Work and cost of an extraction.

    samples: number by split. content_bytes: size of all encoded samples, estimated from a few before they are prepared.
    decode_s: CPU seconds to read one sample and make every teacher's crop, on average over pairs that share a picture.
    decode_hours: time to read all samples on the reading CPUs. waves: teachers that work at the same time. hours: time of the
    whole extraction, the slowest stage of each wave. idle_gpus: the cluster's GPUs that no teacher requests. free_bytes: free
    space on the workspace's disk; None on an object store.
    """

    samples: dict[str, int]
    content_bytes: int
    decode_s: float
    decode_hours: float
    teachers: tuple[TeacherEstimate, ...]
    waves: list[Wave]
    hours: float
    idle_gpus: float
    free_bytes: int | None


def plan(recipe: Recipe) -> Estimate:
    """Tries every teacher on a few samples, on the kind of device that `extract` would use.

    Raises InputError for any fault of the recipe, or if the cluster lacks the requested GPUs.
    """
    described = {teacher.name: describe_teacher(teacher) for teacher in recipe.teachers}
    work = _prepared_work(recipe) or _listed_work(recipe, described)
    nodes = nodes_resources()
    turns = waves(recipe.teachers, nodes, recipe.resources.decode_cpus)
    tried = [_try_wave(recipe, wave, described, nodes, work) for wave in turns]
    by_name = {estimate.name: estimate for turn in tried for estimate in turn.teachers}
    return Estimate(
        samples=work.samples,
        content_bytes=work.content_bytes,
        decode_s=sum(turn.decode_s for turn in tried),
        decode_hours=sum(turn.decode_hours for turn in tried),
        teachers=tuple(by_name[name] for name in recipe.teacher_names()),
        waves=turns,
        hours=sum(turn.hours for turn in tried),
        idle_gpus=sum(node.get("GPU", 0.0) for node in nodes) - max(turn.gpus for turn in tried),
        free_bytes=_free_bytes(Workspace.at(recipe.workspace)),
    )


@dataclass(frozen=True)
class _Turn:
    """A wave of teachers, tried. decode_s: CPU seconds to read one sample for them. gpus: that they use."""

    decode_s: float
    decode_hours: float
    gpus: float
    teachers: list[TeacherEstimate]

    @property
    def hours(self) -> float:
        return max(self.decode_hours, *(estimate.hours for estimate in self.teachers))


def _try_wave(
    recipe: Recipe,
    wave: Wave,
    described: Mapping[str, TeacherDescription],
    nodes: list[dict[str, float]],
    work: _Work,
) -> _Turn:
    """Reads a few samples for the teachers of a wave and runs each over them."""
    share = share_of(wave, nodes, recipe.resources.decode_cpus)
    started = time.perf_counter()
    inputs, _ = make_inputs(work.tried, {teacher.name: described[teacher.name] for teacher in wave})
    decode_s = (time.perf_counter() - started) / work.tried.num_rows
    estimates = []
    counts = actors_with_room(wave, nodes, recipe.resources.decode_cpus)
    for teacher, num_actors in zip(wave, counts, strict=True):
        trial = ray.remote(_try_teacher).options(
            num_cpus=share.of(teacher)["CPU"], num_gpus=teacher.num_gpus, max_retries=0
        )
        result = ray.get(trial.remote(teacher, inputs[teacher.name]))
        if isinstance(result, InputError):
            raise result
        estimates.append(_estimate(teacher, num_actors, result, inputs[teacher.name], work))
    reading_cpus = share.readers * share.reader_cpus
    to_read = max(work.missing[teacher.name].samples for teacher in wave) / work.views
    decode_hours = to_read * decode_s / reading_cpus / 3600
    gpus = sum(teacher.num_gpus * num_actors for teacher, num_actors in zip(wave, counts, strict=True))
    return _Turn(decode_s, decode_hours, gpus, estimates)


@dataclass(frozen=True)
class _Missing:
    """What a teacher lacks, over all views. shards: None before they are cut. inputs: pairs of one picture may have one."""

    shards: int | None
    samples: int
    inputs: int


@dataclass(frozen=True)
class _Work:
    """samples: number by split. content_bytes: of all. missing: by teacher. tried: a table of a few samples. views: of each
    sample."""

    samples: dict[str, int]
    content_bytes: int
    missing: dict[str, _Missing]
    tried: pa.Table
    views: int


def _prepared_work(recipe: Recipe) -> _Work | None:
    """None if the samples are not prepared yet."""
    workspace = Workspace.at(recipe.workspace)
    manifests = [workspace.samples(split).manifest() for split in recipe.extracted_splits()]
    if not all(manifests):
        return None
    todo = plan_extraction(recipe)
    missing = {}
    for teacher, views in todo.views.items():
        found = [(view, s.split, s.shard) for view in views for s in todo.missing if view in s.teachers]
        num_samples = sum(todo.num_samples[split][shard] for _, split, shard in found)
        missing[teacher] = _Missing(len(found), num_samples, sum(todo.num_inputs(*place) for place in found))
    tried = workspace.samples("train").read_shard(0).slice(0, TRIED)
    samples = {split: sum(counts) for split, counts in todo.num_samples.items()}
    content_bytes = sum(shard["num_bytes"] for manifest in manifests if manifest for shard in manifest["shards"])
    return _Work(samples, content_bytes, missing, tried, recipe.train.views)


def _listed_work(recipe: Recipe, described: Mapping[str, TeacherDescription]) -> _Work:
    if not recipe.teachers:
        raise InputError("The recipe names no teachers: there is nothing to extract.")
    listing = list_samples(recipe.dataset)
    chosen, pictures = choose_splits(listing, recipe.dataset), pictures_of(listing)
    read = {split: chosen[split] for split in recipe.extracted_splits()}
    samples, views = {split: len(indices) for split, indices in read.items()}, recipe.train.views
    total = sum(samples.values())
    num_pictures = total if pictures is None else sum(len(np.unique(pictures[indices])) for indices in read.values())
    missing = {
        name: _Missing(None, total * views, total * (views - 1) + (num_pictures if about.is_of_picture else total))
        for name, about in described.items()
    }
    tried, _ = samples_table(listing, side_by_side(chosen["train"], pictures)[:TRIED], recipe.dataset)
    return _Work(samples, int(tried.nbytes / tried.num_rows * total), missing, tried, views)


def _try_teacher(teacher: TeacherConfig, inputs: Any) -> tuple[int, float, float] | InputError:
    """Width of the features, seconds to load the teacher, and samples per second once it is warm."""
    started = time.perf_counter()
    try:
        model = build_teacher(teacher, device_of(teacher))
    except InputError as error:
        return error
    load_s = time.perf_counter() - started
    inputs = _filled(inputs, teacher.batch_size)
    embed(model, inputs, teacher.batch_size)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < TRIAL_S:
        embed(model, inputs, teacher.batch_size)
        count += len(inputs)
    return model.feature_dim, load_s, count / (time.perf_counter() - started)


def _filled(inputs: Any, batch_size: int) -> Any:
    """The inputs, repeated until they fill a batch: a GPU computes many samples as fast as a few."""
    times = -(-batch_size // len(inputs))
    return list(inputs) * times if isinstance(inputs[0], str) else np.concatenate([inputs] * times)


def _estimate(
    teacher: TeacherConfig, num_actors: int, result: tuple[int, float, float], inputs: Any, work: _Work
) -> TeacherEstimate:
    feature_dim, load_s, samples_per_s = result
    missing = work.missing[teacher.name]
    hours = (missing.inputs / samples_per_s / num_actors + load_s) / 3600 if missing.inputs else 0.0
    itemsize = 2 if teacher.features_dtype == "float16" else 4
    return TeacherEstimate(
        name=teacher.name,
        feature_dim=feature_dim,
        shards_missing=missing.shards,
        samples=missing.inputs,
        crop_bytes=inputs[0].nbytes * work.views if hasattr(inputs, "nbytes") else 0,
        feature_bytes=sum(work.samples.values()) * work.views * feature_dim * itemsize,
        samples_per_s=samples_per_s,
        load_s=load_s,
        hours=hours,
        gpu_hours=hours * num_actors * teacher.num_gpus,
    )


def _free_bytes(workspace: Workspace) -> int | None:
    if not workspace.is_local:
        return None
    there = Path(workspace.path)
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
