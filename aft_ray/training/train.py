"""train: one run, from one CPU process to many nodes with the same code.

Several workers are Ray Train's, and so is one where RAY_ADDRESS names a cluster. One worker on this machine is this process.
A killed job goes on from its last checkpoint when the same command is run again.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from queue import Empty, Queue
from typing import Any

from aft_ray.cluster.address import names_cluster
from aft_ray.cluster.lease import lease
from aft_ray.cluster.nodes import nodes_resources
from aft_ray.cluster.progress import Progress
from aft_ray.cluster.starting import Cluster, start_once
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.json_files import damaged
from aft_ray.store.files import Directory
from aft_ray.store.side_by_side import Store
from aft_ray.store.workspace import Workspace
from aft_ray.training.evaluations import METRICS
from aft_ray.training.in_process import train_in_process
from aft_ray.training.inputs.data import transforms_of
from aft_ray.training.inputs.stores import Setup
from aft_ray.training.inputs.streaming import decoded_bytes
from aft_ray.training.provenance import joined_origin, origin, run_inputs, with_defaults
from aft_ray.training.runs import STOP, RunDirectory
from aft_ray.training.work import Work

GRACE_S = 10.0
"""How long an interrupted command waits for the next evaluation and its checkpoint."""
END_S = 10.0
"""How long it then waits for the end of the step."""


def needs_ray(recipe: Recipe) -> bool:
    """Whether the recipe's run needs a Ray cluster: one worker on this machine does not."""
    return recipe.train.num_workers > 1 or names_cluster()


def train(setup: Setup, *, cluster: Cluster = nullcontext) -> Directory:
    """Trains the recipe's student and returns the run's directory, `runs/<run>/`. Leaves a finished run as it is,
    and waits for a run that another command trains.

    cluster: is called unless the run is finished; by default Ray runs already, or is not needed.
    Raises InputError if the run's directory holds a run of another recipe, or there is no room for the workers.
    """
    recipe, stores = setup.recipe, setup.stores
    workspace = Workspace.at(recipe.workspace)
    run = workspace.run(recipe.run)
    with lease(workspace, f"runs/{recipe.run}"), start_once(cluster) as start:
        started, modalities = RunDirectory(run).inputs(), stores["train"].modalities
        if started and run.has(STOP):  # an interrupted command asked for it
            run.delete_file(STOP)
        if not started:
            start()  # whether samples are streamed depends on the nodes
        recipe = with_defaults(decide_streaming(recipe, stores, run), started, modalities)
        if not is_left(run, recipe, stores):
            return run
        start()
        check_resources(recipe)
        with Progress("train", recipe.train.steps, "steps") as progress:

            def show(line: dict[str, Any], num_steps: int) -> None:
                seconds = num_steps * recipe.train.global_batch_size / line["samples_per_s"]
                progress.advance(num_steps, _note(line), seconds)

            train_in(run, recipe, stores, on_evaluation=show)
    return run


def is_left(run: Directory, recipe: Recipe, stores: Mapping[str, Store], *, with_validation: bool = False) -> bool:
    """Claims the directory `run` for a training, and says whether that is still to be done or finished.

    with_validation: on the validation split too. Raises InputError if the directory holds another run, or a damaged one.
    """
    made_of, own = origin(stores), RunDirectory(run)
    own.claim(recipe, run_inputs(recipe, joined_origin(made_of) if with_validation else made_of))
    history = own.history()  # a damaged or foreign one is told before anything starts
    if not own.is_finished:
        return True
    if not history:
        raise damaged(f"{run}/{METRICS}", ["it is missing"], own.way_out)
    own.recover()
    return False


def train_in(
    run: Directory,
    recipe: Recipe,
    stores: Mapping[str, Store],
    *,
    on_evaluation: Callable[[dict[str, Any], int], None],
    evaluate_test: bool = True,
    with_validation: bool = False,
) -> None:
    """Trains in the directory `run`, which `is_left` has claimed. with_validation: on the validation split too.

    on_evaluation: is told each evaluation and the steps since the one before, in a thread of this process.
    """
    own = RunDirectory(run)
    resume = own.recover()
    work = Work(recipe, stores, run, evaluate_test, with_validation)
    with _follow(run, on_evaluation):
        interruptible(lambda: _train(work, resume), run)
    own.recover()


def _train(work: Work, resume: Directory | None) -> None:
    if not needs_ray(work.recipe):
        return train_in_process(work, resume)
    from aft_ray.training.in_workers import train_in_workers  # Ray Train takes seconds to import

    train_in_workers(work, resume)


def interruptible(train: Callable[[], None], run: Directory) -> None:
    """Calls `train` in a thread: in the main thread Ray Train would take Ctrl-C for itself and end without a word.

    Interrupted, asks the run to stop at its next evaluation, which leaves a checkpoint, and waits up to `GRACE_S` for it. After
    that, or a second Ctrl-C, the training ends with its step.
    """
    ends: Queue[BaseException | None] = Queue()

    def work() -> None:
        try:
            train()
            ends.put(None)
        except BaseException as error:
            ends.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        error = ends.get()
    except KeyboardInterrupt:
        run.write(STOP, b"")
        try:
            ends.get(timeout=GRACE_S)
        except (Empty, KeyboardInterrupt):
            _end(thread)
        saved = RunDirectory(run).checkpoint()
        step = int(saved.path.rpartition("/step-")[2].partition("-")[0]) if saved else 0
        print(f"train: saved up to step {step}", file=sys.stderr)
        raise
    if error:
        raise error


def _end(thread: threading.Thread) -> None:
    """Ends a thread at its next line of Python. A thread inside torch would abort the process when Python exits."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt))
    thread.join(END_S)


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
    shown = [f"{key} {line[key]:.3f}" for key in (score, "loss", "regularization")]
    return "  ".join([*shown, f"{line['samples_per_s']:.0f} samples/s"])


def decide_streaming(recipe: Recipe, stores: Mapping[str, Store], run: Directory | None = None) -> Recipe:
    """The recipe with `train.streaming` true or false: as the run was started, or by the nodes' memory.

    It is decided once, because the order of samples depends on it.
    """
    if recipe.train.streaming is not None:
        return recipe
    own = RunDirectory(run) if run is not None else None
    if own and own.inputs():  # null, too, is as the run was started
        streaming = own.is_streamed
    else:
        memory = [node.get("memory", 0) for node in nodes_resources() if node.get("CPU")]
        streaming = sum(decoded_bytes(store, transforms_of(recipe)) for store in stores.values()) > min(memory) / 2
    return override(recipe, {"train.streaming": streaming})


def check_resources(recipe: Recipe) -> None:
    """Raises InputError if there is no room for the workers: Ray would wait for ever."""
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
