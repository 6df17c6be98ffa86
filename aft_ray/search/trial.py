"""One trial of a search, in a process that Tune has started for it.

In this process as on several Ray Train workers, every evaluation is reported to Tune at once, a checkpoint is kept, and the
trial's outcome is written before Tune hears of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow.fs as pafs
import ray
from ray import tune

from aft_ray.cluster.quick_exit import exit_quickly
from aft_ray.cluster.scratch import scratch
from aft_ray.recipe.config import Recipe, dump
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.secrets import redacted
from aft_ray.search.shared import Shared, needed
from aft_ray.search.space import Trial
from aft_ray.search.trial_data import data_key
from aft_ray.search.trials import Clock, TrialDirectory
from aft_ray.store.files import Directory
from aft_ray.training.best import best_score
from aft_ray.training.checkpoint import TrainingState, history_of
from aft_ray.training.fit import fit
from aft_ray.training.train import check_resources, is_left, train_in


def run_trial(config: dict[str, Any], *, shared: Shared, data: Mapping[str, ray.ObjectRef]) -> None:
    """Runs in a process that Tune starts. Faults of the trial are recorded, not raised: Tune retries a trial that raises, as it
    retries one whose process died. data: of `TrialData`."""
    exit_quickly()
    directory = shared.directory(tune.get_context().get_trial_name())
    try:
        trial = replace(Trial.of(config["trial"]), seed=directory.facts()["seed"])  # `pbt` copies another trial's
        _train_trial(trial, directory, shared, data)
    except ray.exceptions.RayActorError:
        raise
    except Exception as error:
        lines = error.faults if isinstance(error, InputError) else [f"{type(error).__name__}: {error}"]
        directory.end("failed", redacted(" ".join(lines)))
        tune.report({"step": 0, "score": -math.inf})


def _train_trial(trial: Trial, directory: TrialDirectory, shared: Shared, data: Mapping[str, ray.ObjectRef]) -> None:
    recipe, place = shared.recipe_of(trial), directory.place
    metric, is_final = shared.recipe.search.metric, trial.stage == "final"
    is_population = shared.recipe.search.scheduler == "pbt" and not is_final
    clock, saved_at = Clock(directory.facts()["wall_time_s"]), 0.0
    num_gpus = needed(shared.recipe).get("GPU", 0.0)
    told: list[dict[str, Any]] = []

    def tell(line: Mapping[str, Any], checkpoint: Any = None) -> None:
        told.append(dict(line))
        is_over = directory.outcome() is not None  # no scheduler decides about it
        tune.report({"step": line["step"], "score": best_score(told, metric), "done": is_over}, checkpoint=checkpoint)

    def report(metrics: dict[str, Any], state: TrainingState) -> None:
        nonlocal saved_at
        directory.note(trial, wall_time_s=clock.read(), num_gpus=num_gpus)
        if directory.is_finished:
            directory.end("finished")
        elif time.monotonic() - saved_at > shared.recipe.search.checkpoint_every_s:
            directory.save(state)
            saved_at = time.monotonic()
        if not is_population:
            return tell(metrics)
        with scratch() as folder:
            state.save(Directory(pafs.LocalFileSystem(), str(folder)))
            tell(metrics, tune.Checkpoint.from_directory(folder))

    resume, taken_over = directory.checkpoint(), tune.get_checkpoint() if is_population else None
    if taken_over:
        place.write("config.yaml", dump(recipe).encode())
        resume = Directory(taken_over.filesystem, taken_over.path)
    if recipe.train.num_workers > 1:
        return _train_with_workers(recipe, directory, shared, trial, tell, clock)
    if resume:
        for line in history_of(resume):
            tell(line)  # an earlier process of the search was told, this one's scheduler was not
    saved_at = time.monotonic()
    fit(
        recipe,
        ray.get(data[data_key(recipe)]),
        directory=place,
        report=report,
        resume=resume,
        adopt=taken_over is not None,
        evaluate_test=is_final,
    )


def _train_with_workers(
    recipe: Recipe, directory: TrialDirectory, shared: Shared, trial: Trial, tell: Any, clock: Clock
) -> None:
    """A trial on Ray Train, whose evaluations are reported to Tune as they are written."""

    def pass_on(line: dict[str, Any], num_steps: int) -> None:
        directory.note(trial, wall_time_s=clock.read(), num_gpus=needed(shared.recipe).get("GPU", 0.0))
        tell(line)

    if is_left(directory.place, recipe, shared.stores, with_validation=shared.with_validation):
        check_resources(recipe)
        train_in(
            directory.place,
            recipe,
            shared.stores,
            on_evaluation=pass_on,
            evaluate_test=trial.stage == "final",
            with_validation=shared.with_validation,
        )
    directory.end("finished" if directory.is_finished else "stopped")
