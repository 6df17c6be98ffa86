"""While two workers train on this machine, nobody else can reach a socket of theirs or of Ray; one Ctrl-C ends them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers.jobs import processes_with
from tests.helpers.long_training import long_training

LISTENING = "0A"
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


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
@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_two_local_workers_and_their_ray_listen_on_the_loopback_interface_alone_and_an_interrupt_ends_them(
    tmp_path: Path,
) -> None:
    with long_training(tmp_path, "train.num_workers=2", "resources.cpus_per_worker=0.5") as training:
        found = listening_addresses(processes_with(training.mark))
        assert found and found <= LOOPBACK
        training.check_ends_with(signal.SIGINT)
