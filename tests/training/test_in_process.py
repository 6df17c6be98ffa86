"""A training in this process leaves the process as it was, and needs no Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from aft_ray.commands.check import open_setup
from aft_ray.recipe.config import load, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.training import train as train_module
from aft_ray.training.runs import STOP, RunDirectory
from aft_ray.training.train import needs_ray, train
from tests.helpers import DATA

TRAIN = ("run=new", "train.steps=4", "train.deterministic=true")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small workspace with samples; the working directory is the one that its recipe lies in."""
    with tarfile.open(DATA / "workspace-2026-11-27.tar.gz") as stored:
        stored.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_worker_leaves_torch_s_settings_and_random_numbers_as_they_were(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe = load("recipe.yaml", TRAIN)
    before = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    train(open_setup(recipe, "train"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before[1:]
    assert (workspace / "work" / "runs" / "new" / "student" / "student.json").exists()


def test_a_finished_run_keeps_its_student_and_no_checkpoint_and_a_stopped_one_its_last(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe, run = load("recipe.yaml", (*TRAIN, "train.evaluate_every=2")), workspace / "work" / "runs" / "new"

    def stop(own: RunDirectory) -> Directory | None:
        """Before the run starts, as Ctrl-C does in its first steps."""
        own.place.write(STOP, b"")
        return None

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "recover", stop)
        train(open_setup(recipe, "train"))
    stopped = RunDirectory(Workspace.at(workspace / "work").run("new"))
    assert not stopped.is_finished and len(list(run.glob("checkpoints/step-*"))) == 1

    train(open_setup(recipe, "train"))
    assert stopped.is_finished and not list(run.glob("checkpoints/step-*"))

    # Killed after its last step, or of an earlier version: the same command deletes it.
    (run / "checkpoints" / "step-00000004-abcd").mkdir(parents=True)
    (run / "checkpoints" / "notes.txt").write_text("mine")
    train(open_setup(recipe, "train"))
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["notes.txt"]


def test_a_run_that_is_finished_or_refused_starts_neither_its_progress_nor_a_cluster(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe = load("recipe.yaml", TRAIN)
    train(open_setup(recipe, "train"))
    assert "train: 0/4 steps" in capsys.readouterr().err

    def never() -> NoReturn:
        raise AssertionError("a cluster was started")

    train(open_setup(recipe, "train"), cluster=never)
    with pytest.raises(InputError, match="holds a run with another train.learning_rate"):
        train(open_setup(override(recipe, {"train.learning_rate": 0.5}), "train"), cluster=never)
    with pytest.raises(InputError, match="train.num_workers is 1, the cluster has room for 0 of 999 CPUs"):
        train(open_setup(override(recipe, {"run": "large", "resources.cpus_per_worker": 999}), "train"))
    assert capsys.readouterr().err == ""


def test_where_ray_address_names_a_cluster_its_workers_train(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load("recipe.yaml", TRAIN)
    for address, needed in ((None, False), ("local", False), ("10.0.0.1:6379", True)):
        if address is None:
            monkeypatch.delenv("RAY_ADDRESS", raising=False)
        else:
            monkeypatch.setenv("RAY_ADDRESS", address)
        assert needs_ray(recipe) is needed
    monkeypatch.delenv("RAY_ADDRESS")
    assert needs_ray(load("recipe.yaml", (*TRAIN, "train.num_workers=2")))


@pytest.mark.processes
def test_the_command_starts_no_ray_for_one_worker(workspace: Path) -> None:
    script = "import sys; from aft_ray.cli import main; s = main(sys.argv[1:]); import ray; sys.exit(s or ray.is_initialized())"
    done = subprocess.run(
        [sys.executable, "-c", f"{script} or 'ray.train' in sys.modules", "train", "recipe.yaml", *TRAIN],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("again", [True, False])
def test_a_training_that_ctrl_c_does_not_stop_in_time_ends_with_its_step(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Else its thread is inside torch when Python exits, and the process aborts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run as a shell's background job
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(train_module, "GRACE_S", 30.0 if again else 0.1)
    threads: list[threading.Thread] = []

    def train_on() -> None:
        threads.append(threading.current_thread())
        for seconds in (0.2, 0.6)[: 1 + again]:
            threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGINT]).start()
        while True:
            torch.ones(64, 64).matmul(torch.ones(64, 64))

    with pytest.raises(KeyboardInterrupt):
        train_module.interruptible(train_on, Workspace.at(str(tmp_path)).run("main"))
    assert not threads[0].is_alive()
