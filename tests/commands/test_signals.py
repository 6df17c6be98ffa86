"""Signals to a training: it saves, says so, ends with 1, leaves no process behind, and goes on with the same command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path

import pytest

from aft_ray.commands.signals import signals_as_before, take_signals
from tests.helpers import DATA
from tests.helpers.jobs import processes_with

TRAIN = ("train", "recipe.yaml", "run=long", "train.steps=200000", "train.evaluate_every=100", "train.max_failures=0")


class Interrupted:
    """Its finalizer is at work when Ctrl-C comes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize("ignored", [False, True], ids=["in a terminal", "as a shell's background job"])
def test_an_interrupt_that_comes_in_a_finalizer_is_not_lost(ignored: bool, request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    number = signal.SIGTERM if ignored else signal.SIGINT
    with signals_as_before():
        take_signals()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            Interrupted(number)  # gone at once
            time.sleep(10)
        assert time.monotonic() - started < 5


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "workers"),
    [("SIGINT", 1), ("SIGTERM", 1), ("SIGHUP", 1), pytest.param("SIGINT", 2, marks=pytest.mark.ray)],
)
def test_a_signal_ends_a_training_with_a_checkpoint_a_line_and_no_process(
    name: str, workers: int, tmp_path: Path
) -> None:
    with tarfile.open(DATA / "workspace-2026-11-27.tar.gz") as stored:
        stored.extractall(tmp_path, filter="data")
    mark = f"AFT_RAY_TEST={uuid.uuid4().hex}"
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | dict([mark.split("=")])
    metrics = tmp_path / "work" / "runs" / "long" / "metrics.jsonl"
    training = subprocess.Popen(
        [sys.executable, "-m", "aft_ray.cli", *TRAIN, f"train.num_workers={workers}"],
        cwd=tmp_path,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not metrics.exists():
        assert time.monotonic() < deadline and training.poll() is None
        time.sleep(0.1)
    training.send_signal(getattr(signal, name))
    _, told = training.communicate(timeout=60)
    assert training.returncode == 1
    of_start = ("train: ", "aft-ray: starting Ray")
    lines = [line for line in told.splitlines() if not line.startswith(of_start) or "saved" in line]
    step = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert lines == [f"train: saved up to step {step}", "aft-ray: stopped; run the same command again to continue."]
    deadline = time.monotonic() + 20
    while left := processes_with(mark):
        assert time.monotonic() < deadline, [(place / "cmdline").read_text() for place in left]
        time.sleep(0.2)
