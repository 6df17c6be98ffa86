"""Completion in the shell, as argcomplete asks for it."""

from __future__ import annotations

import os
import subprocess
import sys

from aft_ray.commands.completion import keys_beginning, overrides_beginning


def test_keys_and_overrides_are_completed() -> None:
    assert "train.steps=" in overrides_beginning("train.st") and "train=" not in overrides_beginning("train")
    assert {"train", "train.steps"} <= set(keys_beginning("train"))


def test_the_shell_s_question_is_answered() -> None:
    line = "aft-ray pre"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = f"exec {sys.executable} -m aft_ray.cli 8>&1 >/dev/null"
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, **asked}, capture_output=True, text=True, timeout=60
    )
    assert "prepare" in done.stdout and "predict" in done.stdout
