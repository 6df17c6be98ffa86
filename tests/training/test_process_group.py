"""While two workers train on this machine, nobody else can reach a socket of theirs or of Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path

import pytest

from tests.helpers import DATA
from tests.helpers.jobs import processes_with

LISTENING = "0A"
TRAIN = ("train.num_workers=2", "train.steps=100000", "train.evaluate_every=20", "resources.cpus_per_worker=0.5")


def listening_addresses(processes: list[Path]) -> set[str]:
    """The addresses, in the kernel's hexadecimal form, on which the processes listen."""
    inodes = set()
    for place in processes:
        try:
            inodes |= {os.readlink(link) for link in (place / "fd").iterdir()}
        except OSError:
            continue
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path("/proc/net", kind).read_text().splitlines()[1:]]
    return {line[1].split(":")[0] for line in lines if line[3] == LISTENING and f"socket:[{line[9]}]" in inodes}


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_two_local_workers_and_their_ray_listen_on_the_loopback_interface_alone(tmp_path: Path) -> None:
    with tarfile.open(DATA / "workspace-2026-11-27.tar.gz") as stored:
        stored.extractall(tmp_path, filter="data")
    mark = f"AFT_RAY_TEST={uuid.uuid4().hex}"
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own |= dict([mark.split("=")])
    command = [sys.executable, "-m", "aft_ray.cli", "train", "recipe.yaml", "run=two", *TRAIN]
    training = subprocess.Popen(command, cwd=tmp_path, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "work" / "runs" / "two" / "metrics.jsonl").exists():
            assert time.monotonic() < deadline and training.poll() is None
            time.sleep(0.2)
        found = listening_addresses(processes_with(mark))
    finally:
        training.terminate()
        training.wait(60)
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert found and found <= loopback
