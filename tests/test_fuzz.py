"""Forty mutations of a workspace, recipes and raw data: each verb ends with the right results or in clear lines."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT


@pytest.mark.processes
def test_no_mutation_ends_in_a_traceback_a_hang_a_wrong_number_or_a_loss() -> None:
    command = [sys.executable, "jobs/benchmarks/fuzz.py", "--mutations", "40", "--verbs", "1", "--seed", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| **all** | 40 |" in done.stdout
