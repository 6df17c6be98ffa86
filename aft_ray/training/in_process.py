"""A training in this process: one worker, without a cluster. There is no other process to wait for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from aft_ray.recipe.config import Recipe
from aft_ray.store.files import Directory
from aft_ray.training.build import set_deterministic
from aft_ray.training.checkpoint import TrainingState
from aft_ray.training.runs import STOP, RunDirectory
from aft_ray.training.work import Work


def train_in_process(work: Work, resume: Directory | None) -> None:
    """Trains, saving a checkpoint at every evaluation while the next steps run."""
    own = RunDirectory(work.run)
    with ThreadPoolExecutor(1, "checkpoint") as pool:
        saving: Future[None] | None = None

        def save(state: TrainingState) -> None:
            state.save(own.new_checkpoint(state.step))
            own.keep_last_checkpoint()

        def report(metrics: dict[str, Any], state: TrainingState) -> bool:
            nonlocal saving
            if saving:
                saving.result()  # its error, and no more than one snapshot in memory
            work.show(metrics)
            saving = pool.submit(save, state)
            return work.run.has(STOP)

        def latest() -> Directory | None:
            if saving:
                saving.result()
            return own.checkpoint()

        with _process_as_before(work.recipe):
            work.fit(report, resume, latest)
        latest()


@contextmanager
def _process_as_before(recipe: Recipe) -> Iterator[None]:
    """Gives the training as many threads as a worker has, and restores torch's settings and random numbers: the process is
    the user's."""
    mode, cudnn, threads = (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.deterministic,
        torch.get_num_threads(),
    )
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, int(recipe.resources.cpus_per_worker)))
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if recipe.train.use_gpu else []):
            yield
    finally:
        set_deterministic(mode, recipe.train.compile)
        torch.backends.cudnn.deterministic = cudnn
        torch.set_num_threads(threads)
