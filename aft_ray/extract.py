"""extract: samples -> features of every teacher, shard by shard, through one Ray Data pipeline.

    missing shards -> read and crop (CPU tasks, anywhere) -> teacher A (actors) -> teacher B (actors) -> ...

One row of the pipeline is one shard. The CPU stage decodes each image once and makes every teacher's crop; each teacher
takes its crops off the row, so that rows get lighter along the way, and writes its own shard as soon as it has it. All
pools work at the same time, on different shards. What was written survives any crash: a restart does the rest.
"""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
import torch

import aft_ray
from aft_ray.config import InputError, Recipe, TeacherConfig
from aft_ray.crops import CROPS, read_shard
from aft_ray.progress import Progress
from aft_ray.store import Workspace, features_table, samples_fingerprint
from aft_ray.teachers import TeacherDescription, build_teacher, describe_teacher

EXTRACTED_SPLITS = ("train", "validation")
"""Training needs the teachers for the train split, ranking for validation; nothing ever for the test split."""

Plan = Mapping[tuple[str, str], dict[str, Any]]
"""(teacher, split) -> the fingerprint of the features to be."""


def extract(recipe: Recipe) -> dict[str, int]:
    """Computes every missing features shard of the recipe's teachers. Returns the number of shards made per teacher.

    Raises InputError if samples are missing, a sample cannot be decoded, or shards on disk are of another setting.
    """
    if not recipe.teachers:
        raise InputError("The recipe names no teachers: there is nothing to extract.")
    workspace = Workspace.at(recipe.workspace)
    samples = {split: workspace.samples(split).manifest() for split in EXTRACTED_SPLITS}
    if None in samples.values():
        raise InputError(f"No samples in {workspace}. Run 'aft-ray prepare' first.")
    manifests = {split: manifest for split, manifest in samples.items() if manifest}
    descriptions = {teacher.name: describe_teacher(teacher) for teacher in recipe.teachers}
    _check_modality(manifests["train"]["modality"], descriptions)
    plan = {
        (teacher, split): {**description.fingerprint, "samples": samples_fingerprint(manifest)}
        for teacher, description in descriptions.items()
        for split, manifest in manifests.items()
    }
    rows = _missing_rows(workspace, plan, {split: len(manifest["shards"]) for split, manifest in manifests.items()})
    if rows:
        _run_pipeline(recipe, workspace, plan, descriptions, rows)
    for (teacher, split), fingerprint in plan.items():
        directory = workspace.features(teacher, split)
        if directory.manifest() is None:
            feature_dim = directory.read_shard(0).schema.field("features").type.list_size
            num_shards = len(manifests[split]["shards"])
            directory.write_manifest(num_shards, fingerprint, feature_dim=feature_dim, made_with=_versions())
    return {name: sum(name in row["teachers"].split(",") for row in rows) for name in descriptions}


def _check_modality(modality: str, descriptions: Mapping[str, TeacherDescription]) -> None:
    faults = [
        f"Teacher '{name}' takes {description.modality}s, the data set has {modality}s."
        for name, description in descriptions.items()
        if description.modality != modality
    ]
    if faults:
        raise InputError(faults)


def _missing_rows(workspace: Workspace, plan: Plan, num_shards: Mapping[str, int]) -> list[dict[str, Any]]:
    """One row per samples shard that some teacher still lacks: {split, shard, teachers: comma-joined names}."""
    lacking: dict[tuple[str, int], list[str]] = {}
    faults: list[str] = []
    for (teacher, split), fingerprint in plan.items():
        try:
            for shard in workspace.features(teacher, split).missing_shards(num_shards[split], fingerprint):
                lacking.setdefault((split, shard), []).append(teacher)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return [{"split": split, "shard": shard, "teachers": ",".join(names)} for (split, shard), names in lacking.items()]


def _run_pipeline(
    recipe: Recipe,
    workspace: Workspace,
    plan: Plan,
    descriptions: Mapping[str, TeacherDescription],
    rows: list[dict[str, Any]],
) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts shards of teachers, not blocks
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, once, below
    context.raise_original_map_exception = True
    faults = _consume(_build_pipeline(recipe, workspace, plan, descriptions, rows), rows)
    if faults:
        # The failed execution is part of a reference cycle, and its actors keep their CPUs until it is collected.
        gc.collect()
        raise InputError(faults)


def _build_pipeline(
    recipe: Recipe,
    workspace: Workspace,
    plan: Plan,
    descriptions: Mapping[str, TeacherDescription],
    rows: list[dict[str, Any]],
) -> ray.data.Dataset:
    num_cpus = cpus_per_actor(recipe.teachers, ray.cluster_resources())
    pipeline = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        partial(read_shard, workspace=workspace, descriptions=descriptions), num_cpus=min(0.5, num_cpus / 2)
    )
    for teacher in recipe.teachers:
        pipeline = pipeline.map(
            EmbedShard,
            fn_constructor_args=(teacher, workspace, plan),
            compute=ray.data.ActorPoolStrategy(size=teacher.num_actors),
            num_cpus=1 if teacher.num_gpus else num_cpus,
            num_gpus=teacher.num_gpus,
        )
    return pipeline


def _consume(pipeline: ray.data.Dataset, rows: list[dict[str, Any]]) -> list[str]:
    """Runs the pipeline to its end, showing progress. Returns what is wrong with the input, if that ended it."""
    with Progress("extract", sum(len(row["teachers"].split(",")) for row in rows), "shards") as progress:
        try:
            for row in pipeline.iter_rows():
                names = row["teachers"].split(",")
                speeds = "  ".join(f"{name} {len(row['sample_id']) / row[f'{name}_s']:.0f}/s" for name in names)
                progress.advance(len(names), speeds)
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, InputError):
                raise
            return error.cause.faults
    return []


def cpus_per_actor(teachers: tuple[TeacherConfig, ...], resources: Mapping[str, float]) -> float:
    """CPUs for each teacher actor that has no GPU: what decoding leaves, shared out; 1 or a fraction on small machines.

    Actors keep their CPUs for the whole run; if they took all, no CPU would be left to read shards and the pipeline
    would wait for ever.

    Raises InputError if the cluster has not the GPUs that the recipe asks for.
    """
    gpus_asked = sum(teacher.num_gpus * teacher.num_actors for teacher in teachers)
    if gpus_asked > resources.get("GPU", 0):
        raise InputError(
            f"teachers ask for {gpus_asked:g} GPUs, the cluster has {resources.get('GPU', 0):g}."
            " Lower num_gpus or num_actors."
        )
    cpus = resources.get("CPU", 1.0)
    on_gpu = sum(teacher.num_actors for teacher in teachers if teacher.num_gpus)
    on_cpu = sum(teacher.num_actors for teacher in teachers if not teacher.num_gpus)
    share = (cpus - max(1.0, cpus / 4) - on_gpu) / max(1, on_cpu)
    return float(int(share)) if share >= 1 else max(0.1, round(share, 2))


class EmbedShard:
    """One teacher on one device: takes its crops off the row, writes its features shard, passes the row on."""

    def __init__(self, config: TeacherConfig, workspace: Workspace, plan: Plan) -> None:
        self.config = config
        self.workspace = workspace
        self.plan = plan
        self.fault: InputError | None = None
        try:
            self.teacher = build_teacher(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        except InputError as error:
            self.fault = error  # of a constructor that raises Ray would only tell that the actor died

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        name, split = self.config.name, row["split"]
        inputs = row.pop(CROPS + name)
        started = time.perf_counter()
        if len(inputs):
            size = self.config.batch_size
            blocks = [self.teacher(inputs[start : start + size]) for start in range(0, len(inputs), size)]
            table = features_table(pa.array(row["sample_id"]), torch.cat(blocks).numpy())
            self.workspace.features(name, split).write_shard(row["shard"], table, self.plan[name, split])
        row[f"{name}_s"] = time.perf_counter() - started
        return row


def _versions() -> dict[str, str]:
    """Versions that may change the last digits of features; recorded, not compared."""
    libraries = {package: importlib.metadata.version(package) for package in ("torch", "timm", "transformers")}
    return {"aft-ray": aft_ray.__version__, **libraries}
