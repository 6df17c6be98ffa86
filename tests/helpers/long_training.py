"""A training that would take long, as a command of its own, and how a signal ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import DATA
from tests.helpers.jobs import as_in_a_terminal, processes_with

TRAIN = ("train", "recipe.yaml", "run=long", "train.steps=200000", "train.evaluate_every=100", "train.max_failures=0")


@dataclass(frozen=True)
class LongTraining:
    """`aft-ray train`, at work. metrics: its file. mark: in the environment of all its processes."""

    process: subprocess.Popen[str]
    metrics: Path
    mark: str

    def check_ends_with(self, number: signal.Signals) -> None:
        """The signal ends it with a checkpoint, its two lines and no process left behind."""
        self.process.send_signal(number)
        _, told = self.process.communicate(timeout=60)
        assert self.process.returncode == 1
        of_start = ("train: ", "aft-ray: starting Ray")
        lines = [line for line in told.splitlines() if not line.startswith(of_start) or "saved" in line]
        step = json.loads(self.metrics.read_text().splitlines()[-1])["step"]
        assert lines == [f"train: saved up to step {step}", "aft-ray: stopped; run the same command again to continue."]
        deadline = time.monotonic() + 20
        while left := processes_with(self.mark):
            assert time.monotonic() < deadline, [(place / "cmdline").read_text() for place in left]
            time.sleep(0.2)


@contextmanager
def long_training(place: Path, *changes: str) -> Iterator[LongTraining]:
    """A training in the empty directory `place`, from its first evaluation on."""
    with tarfile.open(DATA / "workspace-2026-11-27.tar.gz") as stored:
        stored.extractall(place, filter="data")
    mark = f"AFT_RAY_TEST={uuid.uuid4().hex}"
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | dict([mark.split("=")])
    process = subprocess.Popen(
        [sys.executable, "-m", "aft_ray.cli", *TRAIN, *changes],
        cwd=place,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_a_terminal,
    )
    try:
        training = LongTraining(process, place / "work" / "runs" / "long" / "metrics.jsonl", mark)
        deadline = time.monotonic() + 300
        while not training.metrics.exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        yield training
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)
