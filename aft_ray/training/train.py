"""train: one run on Ray Train, from one CPU process to many nodes with the same code.

A killed worker is replaced and the run goes on from its last checkpoint; a killed job does so when the same command is
run again.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, Queue
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from ray.train import Checkpoint, CheckpointConfig, CheckpointUploadMode, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from aft_ray.cluster.gang import nodes_resources
from aft_ray.cluster.gauges import show_gauges
from aft_ray.cluster.lease import lease
from aft_ray.cluster.progress import Progress
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers.distributed import rank
from aft_ray.store.files import Directory
from aft_ray.store.side_by_side import Store
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import TrainingState
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import load_data, transforms_of
from aft_ray.training.inputs.machine_cache import ArrayCache
from aft_ray.training.inputs.stores import Setup
from aft_ray.training.inputs.streaming import SampleError, decoded_bytes
from aft_ray.training.process_group import BoundTorchConfig
from aft_ray.training.provenance import joined_origin, origin, run_inputs, with_defaults
from aft_ray.training.runs import FAULTS, STOP, RunDirectory

GRACE_S = 10.0
"""How long an interrupted command waits for the next evaluation and its checkpoint."""


def train(setup: Setup) -> Directory:
    """Trains the recipe's student and returns the run's directory, `runs/<run>/`. A finished run is left as it is;
    one that another command is at is waited for.

    Raises InputError if the run's directory holds a run of another recipe, or the cluster has no room for the workers.
    """
    recipe, stores = setup.recipe, setup.stores
    workspace = Workspace.at(recipe.workspace)
    run = workspace.run(recipe.run)
    with lease(workspace, f"runs/{recipe.run}"), Progress("train", recipe.train.steps, "steps") as progress:
        if run.has(STOP):  # an interrupted command asked for it
            run.delete_file(STOP)
        recipe = with_defaults(decide_streaming(recipe, stores, run), RunDirectory(run).inputs())

        def show(line: dict[str, Any], num_steps: int) -> None:
            progress.advance(num_steps, _note(line))

        train_in(run, recipe, stores, on_evaluation=show)
    return run


def train_in(
    run: Directory,
    recipe: Recipe,
    stores: Mapping[str, Store],
    *,
    on_evaluation: Callable[[dict[str, Any], int], None],
    evaluate_test: bool = True,
    with_validation: bool = False,
) -> None:
    """Trains in the directory `run`, unless that is done. with_validation: on the validation split too.

    on_evaluation: is told each evaluation and the steps since the one before, in a thread of this process.
    """
    made_of, own = origin(stores), RunDirectory(run)
    own.claim(recipe, run_inputs(recipe, joined_origin(made_of) if with_validation else made_of))
    if own.is_finished:
        return
    _check_resources(recipe)
    resume = own.recover()
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "recipe": recipe.model_dump(mode="json"),
            "stores": stores,
            "run": run,
            "evaluate_test": evaluate_test,
            "with_validation": with_validation,
            "resume": resume,
        },
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
    with _follow(run, on_evaluation):
        try:
            result = _interruptible(trainer.fit, run)
        except ray.train.TrainingFailedError as error:
            if run.has(FAULTS):
                raise InputError(_faults(run)) from error
            raise
    if result.return_value:
        raise InputError(result.return_value)
    own.recover()


def _interruptible(fit: Callable[[], Any], run: Directory) -> Any:
    """The result of `fit`, run in a thread: in the main thread Ray Train would take Ctrl-C for itself and end without a word.

    Interrupted, asks the run to stop at its next evaluation, which leaves a checkpoint, and waits up to `GRACE_S` for it.
    """
    results: Queue[Any] = Queue()

    def work() -> None:
        try:
            results.put((fit(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get()
    except KeyboardInterrupt:
        run.write(STOP, b"")
        with suppress(Empty):
            results.get(timeout=GRACE_S)
        saved = RunDirectory(run).checkpoint()
        step = int(saved.path.rpartition("/step-")[2].partition("-")[0]) if saved else 0
        print(f"train: saved up to step {step}", file=sys.stderr)
        raise
    if error:
        raise error
    return result


@contextmanager
def _follow(run: Directory, on_evaluation: Callable[[dict[str, Any], int], None]) -> Iterator[None]:
    """Passes on the lines that the main worker adds to `metrics.jsonl`, wherever in the cluster it runs."""
    done = threading.Event()

    def follow() -> None:
        told, last_look = 0, False
        while not last_look:
            last_look = done.wait(0.5)
            for line in RunDirectory(run).history():
                if line["step"] > told:
                    on_evaluation(line, line["step"] - told)
                    told = line["step"]

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _note(line: Mapping[str, Any]) -> str:
    score = "val_loss" if line["val_accuracy"] is None else "val_accuracy"
    shown = [f"{key} {line[key]:.3f}" for key in ("loss", "regularization", score)]
    return "  ".join([*shown, f"{line['samples_per_s']:.0f} samples/s"])


def decide_streaming(recipe: Recipe, stores: Mapping[str, Store], run: Directory | None = None) -> Recipe:
    """The recipe with `train.streaming` true or false: as the run was started, or by the nodes' memory.

    It is decided once, because the order of samples depends on it.
    """
    if recipe.train.streaming is not None:
        return recipe
    if run is not None and (inputs := RunDirectory(run).inputs()):
        streaming = inputs["recipe"]["train"]["streaming"]
    else:
        memory = [node["Resources"].get("memory", 0) for node in ray.nodes() if node["Resources"].get("CPU")]
        streaming = sum(decoded_bytes(store, transforms_of(recipe)) for store in stores.values()) > min(memory) / 2
    return override(recipe, {"train.streaming": streaming})


def _scaling(recipe: Recipe) -> ScalingConfig:
    """A worker's rows are a function of (seed, step, rank, workers), so that their number may change with each restart."""
    most, least = recipe.train.num_workers, recipe.resources.min_workers
    return ScalingConfig(
        num_workers=most if least in (None, most) else (least, most),
        use_gpu=recipe.train.use_gpu,
        resources_per_worker=recipe.worker_resources(),
    )


def _check_resources(recipe: Recipe) -> None:
    """Ray would wait for ever for resources that the cluster does not have."""
    each = recipe.worker_resources()
    room = sum(int(min(node.get(kind, 0) / count for kind, count in each.items())) for node in nodes_resources())
    wanted = recipe.resources.min_workers or recipe.train.num_workers
    if wanted > room:
        gpu = recipe.train.use_gpu
        key = "resources.min_workers" if recipe.resources.min_workers else "train.num_workers"
        raise InputError(
            f"{key} is {wanted}, the cluster has room for {room} of {each['CPU']:g} CPUs{' and a GPU' if gpu else ''}."
            f" Lower it or resources.cpus_per_worker{', or set train.use_gpu=false' if gpu else ''}."
        )


def _work(config: dict[str, Any]) -> list[str]:
    """Runs on every worker. Returns the faults of the input: raised, they would be retried as failures."""
    run: Directory = config["run"]
    if run.has(FAULTS):
        return _faults(run)
    try:
        _fit(Recipe.model_validate(config["recipe"]), config["stores"], run, config)
    except SampleError as error:
        run.write(FAULTS, json.dumps(error.faults).encode())
        raise  # the other workers wait for this one; all are started again, and return
    except InputError as error:
        return error.faults
    return []


def _faults(run: Directory) -> list[str]:
    return run.read_json(FAULTS, list[str], "Run the command again.")


def _fit(recipe: Recipe, stores: Mapping[str, Store], run: Directory, config: Mapping[str, Any]) -> None:
    if recipe.train.use_gpu:
        torch.cuda.set_device(ray.train.torch.get_device())
    found = ray.train.get_checkpoint()
    latest = Directory(found.filesystem, found.path) if found else config["resume"]

    def report(metrics: dict[str, Any], state: TrainingState) -> bool:
        """The main worker saves beside training; Ray waits for that before a worker ends."""
        nonlocal latest
        if rank() != 0:
            ray.train.report(metrics)
            return False
        rows = recipe.train.global_batch_size
        show_gauges("train", recipe.run, {"step_s": rows / metrics["samples_per_s"], **metrics})
        latest = place = run / "checkpoints" / f"step-{state.step:08d}-{uuid.uuid4().hex[:4]}"

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
        return run.has(STOP)

    with ExitStack() as stack:
        cache = stack.enter_context(ArrayCache()) if recipe.train.num_workers > 1 else None
        data = load_data(recipe, stores, cache)
        if config["with_validation"]:
            data = data.with_validation_in_train()
        try:
            fit(recipe, data, directory=run, report=report, resume=latest, evaluate_test=config["evaluate_test"])
        except SampleError:
            raise
        except InputError as error:
            kept = [f"The last good checkpoint is {latest}."] if latest else []
            raise InputError([*error.faults, *kept]) from error
