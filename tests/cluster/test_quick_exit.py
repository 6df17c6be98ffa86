"""A process of ours ends without looking for cycles among all of its objects."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from aft_ray.cluster.quick_exit import exit_quickly

class Kept:
    def __del__(self):
        sys.stdout.write("looked for cycles")

if sys.argv[1] == "quickly":
    exit_quickly()
kept = Kept()
kept.itself = kept
del kept
sys.stdout.write("all done, ")
"""


def ended(how: str) -> str:
    return subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout


def test_a_process_that_exits_quickly_writes_what_it_has_to_say_and_collects_nothing() -> None:
    assert ended("as usual") == "all done, looked for cycles"
    assert ended("quickly") == "all done, "
