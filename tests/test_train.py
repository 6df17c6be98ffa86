"""Real Ray Train: several workers, a killed worker, a second call."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from aft_ray.config import InputError, Recipe, override
from aft_ray.export import load_student
from aft_ray.extract import extract
from aft_ray.prepare import prepare
from aft_ray.store import Workspace
from aft_ray.train import read_history, train
from tests.test_extract import recipe as extract_recipe


@pytest.fixture
def ready(cluster: None, tmp_path: Path, image_folder: Path) -> Recipe:
    given = extract_recipe(tmp_path, image_folder, "efficientnet")
    prepare(given)
    extract(given)
    return override(
        given,
        {
            "train.steps": 20,
            "train.global_batch_size": 15,
            "train.evaluate_every": 4,
            "train.labels_per_class": 5,
            "regularizer.beta": 3,
            "train.learning_rate": 0.003,
        },
    )


def curve(recipe: Recipe, run: str) -> list[dict]:
    return read_history(Workspace.at(recipe.workspace).run(run))


def worker_pids() -> list[int]:
    """Processes of this machine that are Ray Train workers."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if command.startswith(b"ray::") and b"RayTrainWorker" in command:
                found.append(int(directory.name))
    return found


@pytest.mark.ray
def test_workers_agree_with_one_and_a_killed_worker_leaves_no_trace_in_the_curve(ready: Recipe) -> None:
    one = train(ready)
    two = train(override(ready, {"run": "two", "train.num_workers": 2}))

    # 15 rows on two workers are 8 and 7: the objective is still that of the whole batch.
    keys = ("loss", "task_loss", "regularization", "val_loss", "val_accuracy")
    for left, right in zip(read_history(one), read_history(two), strict=True):
        assert {key: left[key] for key in keys} == pytest.approx({key: right[key] for key in keys}, rel=0, abs=1e-4)
    assert read_history(one)[-1]["test_accuracy"] == pytest.approx(read_history(two)[-1]["test_accuracy"])
    assert len(load_student(two).classes) == 2

    # A finished run is left as it is; another recipe does not get its directory.
    before = Path(one.path, "metrics.jsonl").stat().st_mtime_ns
    train(ready)
    assert Path(one.path, "metrics.jsonl").stat().st_mtime_ns == before
    with pytest.raises(
        InputError, match="holds a run with another regularizer.beta. Give this one a name with run=NAME"
    ):
        train(override(ready, {"regularizer.beta": 4}))

    # SIGKILL one of two workers after the first evaluation; the rest is as if nothing had happened.
    killed = override(ready, {"run": "killed", "train.num_workers": 2, "train.steps": 400, "train.evaluate_every": 20})
    undisturbed = override(killed, {"run": "undisturbed"})
    done = threading.Event()
    victims: list[int] = []

    def kill_one() -> None:
        while not done.wait(0.05):
            if curve(killed, "killed") and (pids := worker_pids()):
                victims.append(pids[-1])
                os.kill(pids[-1], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        train(killed)
    finally:
        done.set()
        killer.join()
    assert victims, "the run was over before a worker could be killed"
    train(undisturbed)
    timeless = [
        [{k: v for k, v in line.items() if k != "samples_per_s"} for line in curve(ready, run)]
        for run in ("killed", "undisturbed")
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.ray
def test_a_diverged_run_ends_at_once_with_its_reason(ready: Recipe) -> None:
    changes = {"train.optimizer": "sgd", "train.learning_rate": 1e20, "train.num_workers": 2, "run": "diverged"}
    with pytest.raises(InputError, match="The loss is .* Lower train.learning_rate or regularizer.beta"):
        train(override(ready, changes))


@pytest.mark.ray
def test_what_the_cluster_does_not_have_is_refused(ready: Recipe) -> None:
    with pytest.raises(InputError, match="train.num_workers is 1, the cluster has 0 GPUs. .* train.use_gpu=false"):
        train(override(ready, {"train.use_gpu": True}))
    with pytest.raises(InputError, match="train.num_workers is 5, the cluster has 4 CPUs. Lower it"):
        train(override(ready, {"train.num_workers": 5}))
