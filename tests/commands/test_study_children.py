"""Settings in processes of their own: their lines carry their names, their faults are told, and none is left behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from aft_ray.commands.study_children import _Children

CHILD = """
import sys, time
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
    time.sleep(600)
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


def test_processes_that_still_run_are_stopped(tmp_path: Path) -> None:
    children = _Children([sys.executable, "-c", CHILD], dict(os.environ))
    thread = threading.Thread(target=children.run, args=["endless"])
    thread.start()
    while not children.running:
        time.sleep(0.01)
    children.stop()
    thread.join(20)
    assert not thread.is_alive() and not children.running
