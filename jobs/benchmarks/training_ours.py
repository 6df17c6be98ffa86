"""Our trainers: `fit` without Ray, and `aft-ray train`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from jobs.benchmarks.made_store import made_store
from jobs.benchmarks.training_processes import group, peak_mib
from jobs.benchmarks.training_setting import Measured, Setting, made_data, recipe


def run_fit(setting: Setting, rank: int, folder: str) -> Measured:
    """`fit` without Ray, as one worker of a gloo group."""
    with group(setting, rank, folder):
        history = fit(
            recipe(setting),
            made_data(setting),
            directory=Workspace.at(f"{folder}/run"),
            report=lambda metrics, state: None,
            evaluate_test=False,
        )
    return Measured(*measured_of(history))


def measured_of(history: list[dict[str, Any]]) -> tuple[float, float, float]:
    later = history[1:]
    speed = statistics.median(line["samples_per_s"] for line in later)
    return speed, peak_mib(), statistics.mean(line["input_wait"] for line in later)


def run_command(setting: Setting) -> Measured:
    """`aft-ray train` on a workspace made for it; first_step_s: from its start to its first step."""
    with tempfile.TemporaryDirectory() as folder:
        data = made_data(setting)
        given = override(recipe(setting, folder), {"teachers": [], "regularizer.name": "none"})
        given = override(given, {"train.evaluate_every": 1, "train.steps": 3})
        for name in ("train", "validation", "test"):
            made_store(Path(folder), name, getattr(data, name), 512)
        first, _ = timed_command(given, folder)
        given = override(
            given, {"run": "long", "train.steps": 4 * setting.steps, "train.evaluate_every": setting.steps}
        )
        _, memory = timed_command(given, folder)
        history = [json.loads(line) for line in Path(folder, "runs", "long", "metrics.jsonl").read_text().splitlines()]
        speed, _, wait = measured_of(history)
    return Measured(speed, memory, wait, first)


def timed_command(given: Recipe, folder: str) -> tuple[float, float]:
    """Runs `aft-ray train`. Seconds to its first evaluation, and the largest resident set of a worker in MiB (on Linux)."""
    recipe_file = Path(folder, "recipe.yaml")
    recipe_file.write_text(dump(given))
    started = time.perf_counter()
    command = subprocess.Popen(
        [sys.executable, "-m", "aft_ray.cli", "train", str(recipe_file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = Path(folder, "runs", given.run, "metrics.jsonl")
    seen, memory = None, 0.0
    while command.poll() is None:
        if seen is None and metrics.exists():
            seen = time.perf_counter() - started
        memory = max(memory, *(resident_mib(pid) for pid in Path("/proc").glob("[0-9]*")), 0.0)
        time.sleep(0.1)
    if command.returncode:
        raise RuntimeError(f"aft-ray train ended with {command.returncode}")
    return seen or time.perf_counter() - started, memory


def resident_mib(process: Path) -> float:
    """The largest resident set so far of a process in /proc that is a Ray Train worker; 0 for any other."""
    try:
        if not process.joinpath("cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
            return 0.0
        lines = dict(line.split(":", 1) for line in process.joinpath("status").read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    except (OSError, KeyError):
        return 0.0
