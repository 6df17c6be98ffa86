"""train: one run on Ray Train, from one CPU process to many nodes with the same code.

A killed worker is replaced and the run goes on from its last checkpoint; a killed job does so when the same command is
run again.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from aft_ray.check import check, open_stores
from aft_ray.checkpoint import TrainingState
from aft_ray.config import InputError, Recipe, dump
from aft_ray.distributed import rank
from aft_ray.fit import fit, load_data
from aft_ray.progress import Progress
from aft_ray.store import Directory, Store, Workspace


def train(recipe: Recipe) -> Directory:
    """Trains the recipe's student and returns the run's directory, `runs/<run>/`. A finished run is left as it is.

    Raises InputError for any fault of the recipe, or if the run's directory holds a run of another recipe.
    """
    check(recipe)
    stores = open_stores(recipe)
    run = Workspace.at(recipe.workspace).run(recipe.run)
    _claim(run, recipe, stores)
    if is_finished(run):
        return run
    _check_resources(recipe)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"recipe": recipe.model_dump(mode="json"), "stores": stores, "run": run},
        torch_config=TorchConfig(backend="nccl" if recipe.train.use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=recipe.train.num_workers, use_gpu=recipe.train.use_gpu),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=run.path,
            storage_filesystem=None if run.is_local else run.filesystem,
            failure_config=FailureConfig(max_failures=recipe.train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    with _follow(run, recipe):
        faults = trainer.fit().return_value
    if faults:
        raise InputError(faults)
    return run


@contextmanager
def _follow(run: Directory, recipe: Recipe) -> Iterator[None]:
    """Shows the lines that the main worker adds to `metrics.jsonl`, wherever in the cluster it runs."""
    done = threading.Event()

    def show(progress: Progress) -> None:
        shown = 0
        while not done.wait(0.5):
            history = read_history(run)
            if history and history[-1]["step"] > shown:
                last = history[-1]
                note = f"loss {last['loss']:.3f}  val_accuracy {last['val_accuracy']:.3f}  {last['samples_per_s']:.0f} samples/s"
                progress.advance(last["step"] - shown, note)
                shown = last["step"]

    with Progress("train", recipe.train.steps, "steps") as progress:
        thread = threading.Thread(target=show, args=(progress,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def read_history(run: Directory) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; empty if there is none."""
    if not run.has("metrics.jsonl"):
        return []
    return [json.loads(line) for line in run.read("metrics.jsonl").splitlines()]


def is_finished(run: Directory) -> bool:
    history = read_history(run)
    return bool(history) and "test_accuracy" in history[-1] and run.has("student/student.json")


def _claim(run: Directory, recipe: Recipe, stores: dict[str, Store]) -> None:
    """Writes the resolved recipe and what it was run on beside the run, or checks that they are those there."""
    facts = {
        "recipe": {key: getattr(recipe, key).model_dump(mode="json") for key in ("student", "regularizer", "train")},
        "samples": {split: store.manifest["fingerprint"] for split, store in stores.items()},
        "teachers": {d.path.split("/")[-2]: (d.manifest() or {})["fingerprint"] for d in stores["train"].features},
    }
    for key in ("num_workers", "use_gpu", "max_failures"):
        del facts["recipe"]["train"][key]  # a run may go on with another number of workers
    if run.has("inputs.json"):
        differing = sorted(_differing_keys(json.loads(run.read("inputs.json")), facts))
        if differing:
            raise InputError(
                f"{run} holds a run with another {', '.join(differing)}. Give this one a name with run=NAME,"
                " or delete the directory."
            )
    run.write("config.yaml", dump(recipe).encode())
    run.write("inputs.json", json.dumps(facts, indent=1).encode())


def _differing_keys(left: Any, right: Any, prefix: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        return [
            found
            for key in sorted(left.keys() | right.keys())
            for found in _differing_keys(left.get(key), right.get(key), f"{prefix}.{key}" if prefix else str(key))
        ]
    return [] if left == right else [prefix.removeprefix("recipe.")]


def _check_resources(recipe: Recipe) -> None:
    """Ray would wait for ever for what the cluster does not have."""
    resources = ray.cluster_resources()
    kind = "GPU" if recipe.train.use_gpu else "CPU"
    if recipe.train.num_workers > resources.get(kind, 0):
        raise InputError(
            f"train.num_workers is {recipe.train.num_workers}, the cluster has {resources.get(kind, 0):g} {kind}s."
            f" Lower it{', or set train.use_gpu=false' if kind == 'GPU' else ''}."
        )


def _work(config: dict[str, Any]) -> list[str]:
    """What every worker runs. Returns what is wrong with the input: raised, it would be tried again as a failure."""
    try:
        _fit(config)
    except InputError as error:
        return error.faults
    return []


def _fit(config: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(config["recipe"])
    data = load_data(recipe, config["stores"])
    checkpoint = ray.train.get_checkpoint()
    if recipe.train.use_gpu:
        torch.cuda.set_device(ray.train.torch.get_device())

    def report(metrics: dict[str, Any], state: TrainingState) -> None:
        if rank() != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as directory:
            state.save(Path(directory))
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(directory))

    if checkpoint is None:
        fit(recipe, data, directory=config["run"], report=report)
    else:
        with checkpoint.as_directory() as directory:
            fit(recipe, data, directory=config["run"], report=report, resume=Path(directory))
