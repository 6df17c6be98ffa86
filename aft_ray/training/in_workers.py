"""A training on the workers of Ray Train, from two processes of a machine to many nodes.

A killed worker is replaced and the run goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointConfig, CheckpointUploadMode, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError, WorkerError
from aft_ray.regularizers.distributed import rank
from aft_ray.store.files import Directory
from aft_ray.training.checkpoint import TrainingState
from aft_ray.training.process_group import BoundTorchConfig
from aft_ray.training.runs import FAULTS, STOP, RunDirectory
from aft_ray.training.work import Work


def train_in_workers(work: Work, resume: Directory | None) -> None:
    """Trains on `train.num_workers` workers, or on as many as there is room for, at least `resources.min_workers`."""
    recipe, run = work.recipe, work.run
    trainer = TorchTrainer(
        _work,
        train_loop_config={"work": work, "resume": resume},
        torch_config=BoundTorchConfig(backend="nccl" if recipe.train.use_gpu else "gloo"),
        scaling_config=_scaling(recipe),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=run.path,
            storage_filesystem=None if run.is_local else run.filesystem,
            failure_config=FailureConfig(max_failures=recipe.train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),  # the last; the best weights are inside each
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        if run.has(FAULTS):
            raise InputError(_faults(run)) from error
        raise
    if result.return_value:
        raise InputError(result.return_value)


def _scaling(recipe: Recipe) -> ScalingConfig:
    """A worker's rows are a function of (seed, step, rank, workers), so that their number may change with each restart."""
    most, least = recipe.train.num_workers, recipe.resources.min_workers
    return ScalingConfig(
        num_workers=most if least in (None, most) else (least, most),
        use_gpu=recipe.train.use_gpu,
        resources_per_worker=recipe.worker_resources(),
    )


def _work(config: dict[str, Any]) -> list[str]:
    """Runs on every worker. Returns the faults of the input: raised, they would be retried as failures."""
    work: Work = config["work"]
    if work.run.has(FAULTS):
        return _faults(work.run)
    try:
        _fit(work, config["resume"])
    except WorkerError as error:
        work.run.write(FAULTS, json.dumps(error.faults).encode())
        raise  # the other workers wait for this one; all are started again, and return
    except InputError as error:
        return error.faults
    return []


def _faults(run: Directory) -> list[str]:
    return run.read_json(FAULTS, list[str], "Run the command again.")


def _fit(work: Work, resume: Directory | None) -> None:
    if work.recipe.train.use_gpu:
        torch.cuda.set_device(ray.train.torch.get_device())
    found = ray.train.get_checkpoint()
    latest = resume = Directory(found.filesystem, found.path) if found else resume

    def report(metrics: dict[str, Any], state: TrainingState) -> bool:
        """The main worker saves beside training; Ray waits for that before a worker ends."""
        nonlocal latest
        if rank() != 0:
            ray.train.report(metrics)
            return False
        work.show(metrics)
        latest = place = RunDirectory(work.run).new_checkpoint(state.step)

        def save(checkpoint: Checkpoint, name: str) -> Checkpoint:
            state.save(place)
            return checkpoint

        ray.train.report(
            metrics,
            checkpoint=Checkpoint(place.path, place.filesystem),
            checkpoint_dir_name=place.path.rpartition("/")[2],
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=save,
            delete_local_checkpoint_after_upload=False,
        )
        return work.run.has(STOP)

    work.fit(report, resume, lambda: latest)
