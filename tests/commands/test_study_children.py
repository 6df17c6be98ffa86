"""Settings in processes of their own: their lines carry their names, their faults are told, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aft_ray.commands.study_children import _Children

CHILD = """
import os, sys, time
name = sys.argv[1]
print("tables of the study")
print(f"search: 1/2 trials of {name}", file=sys.stderr)
if name == "faulty":
    print("aft-ray: Setting faulty: no data.", file=sys.stderr)
    print("aft-ray: The page has the other settings.", file=sys.stderr)
    sys.exit(2)
if name == "crashed":
    sys.exit("MemoryError")
if name == "endless":
    from aft_ray.commands.signals import end_with_parent, take_signals

    take_signals()
    end_with_parent()
    print(os.getpid(), file=sys.stderr)
    time.sleep(60)
"""
PARENT = """
import os, sys
from aft_ray.commands.study_children import _Children
_Children([sys.executable, "-c", sys.argv[1]], dict(os.environ)).run("endless")
"""


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("fine", []),
        ("faulty", ["Setting faulty: no data."]),
        ("crashed", ["Setting crashed: its process ended with status 1: MemoryError"]),
    ],
)
def test_a_setting_s_lines_carry_its_name_and_its_faults_are_told(
    name: str, faults: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    children = _Children([sys.executable, "-c", CHILD], dict(os.environ))
    assert children.run(name) == faults and not children.running
    said = capsys.readouterr()
    assert f"{name}: search: 1/2 trials of {name}\n" in said.err and "tables" not in said.out + said.err


def test_processes_that_still_run_are_stopped() -> None:
    children = _Children([sys.executable, "-c", CHILD], dict(os.environ))
    thread = threading.Thread(target=children.run, args=["endless"])
    thread.start()
    while not children.running:
        time.sleep(0.01)
    children.stop()
    thread.join(20)
    assert not thread.is_alive() and not children.running


def test_a_process_that_is_starting_is_stopped_too_and_none_starts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    children, starting = _Children([sys.executable, "-c", CHILD], dict(os.environ)), threading.Event()
    start = subprocess.Popen

    def slowly(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        starting.set()
        time.sleep(0.3)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", slowly)
    thread = threading.Thread(target=children.run, args=["endless"])
    thread.start()
    assert starting.wait(20)
    children.stop()
    thread.join(20)
    assert not thread.is_alive() and not children.running
    assert children.run("faulty") == []


def test_a_setting_s_process_ends_with_a_study_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr is not None
        parent.stderr.readline()
        setting = int(parent.stderr.readline().removeprefix("endless: "))
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while is_at_work(setting):
        assert time.monotonic() < until
        time.sleep(0.02)


def is_at_work(process: int) -> bool:
    """Whether it runs; one that has ended may wait for a parent to look."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
