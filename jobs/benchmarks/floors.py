"""Floors: are extraction, training and the AFT loss still as fast as the plain code beside them? Two minutes on two cores.

    python jobs/benchmarks/floors.py [--only extraction] [--tries 5]

Each number is a ratio of two measurements taken one after the other, so that it depends little on the machine's speed. Other work
on the machine disturbs it: a ratio below its floor is measured again, and twice below fails. `--tries` measures each ratio so
often and fails never; that is how the floors were chosen. The benchmarks of these names measure more, and longer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from jobs.benchmarks.extraction import PICTURE, measure, teacher
from jobs.benchmarks.extraction_made import prepared
from jobs.benchmarks.regularizers import STUDENT_DIM, Case, in_own_process, regularizer_pass
from jobs.benchmarks.training_ours import run_fit
from jobs.benchmarks.training_plain import run_plain
from jobs.benchmarks.training_processes import in_processes
from jobs.benchmarks.training_setting import Measured, Setting

PICTURES, ROWS = 1536, 256
SETTING = Setting("tiny:cnn", image=28, batch=128, steps=30, samples=2560, dim=1024)
LOSS = Case("aft", 128, (STUDENT_DIM,), (3072,))


@dataclass(frozen=True)
class Floor:
    """A ratio of speeds, ours by theirs; measures it with files in a folder.

    measured: the median of at least five. floor: below everything that other work on the machine has made of it.
    """

    name: str
    title: str
    measured: float
    floor: float
    ratio: Callable[[Path], float]


def extraction(folder: Path) -> float:
    recipe = _recipe(folder)
    return float(measure("pipeline", recipe)["samples_per_s"] / measure("loop", recipe)["samples_per_s"])


@cache
def _recipe(folder: Path) -> str:
    return prepared(folder, "small", PICTURES, PICTURE, [teacher("small", folder)], ROWS)


def training(folder: Path) -> float:
    return _by_cpu(run_fit, SETTING) / _by_cpu(run_plain, SETTING)


def aft(folder: Path) -> float:
    return _by_cpu(run_fit, SETTING) / _by_cpu(run_fit, replace(SETTING, method="none"))


def _by_cpu(function: Callable[..., Measured], setting: Setting) -> float:
    """Samples per CPU second of a training in a process of its own, with its start."""
    return in_processes(partial(_timed, function), setting, threads=1).samples_per_s


def _timed(function: Callable[..., Measured], setting: Setting, rank: int, folder: str) -> Measured:
    started = time.process_time()
    found = function(setting, rank, folder)
    return replace(found, samples_per_s=4 * setting.steps * setting.batch / (time.process_time() - started))


def loss(folder: Path) -> float:
    ours, plain = (
        in_own_process(regularizer_pass, "cpu", (LOSS, LOSS.batch_size, is_plain), (LOSS, 4, is_plain), 1).fastest
        for is_plain in (False, True)
    )
    return plain / ours


FLOORS = (
    Floor("extraction", "extraction by a plain loop", 4.9, 0.9, extraction),
    Floor("training", "training by a plain script, in CPU seconds", 0.94, 0.65, training),
    Floor("aft", "training with AFT by training without, in CPU seconds", 0.91, 0.65, aft),
    Floor("loss", "AFT's loss by its formula under autograd", 3.4, 1.2, loss),
)


def holds(floor: Floor, folder: Path, tries: int) -> bool:
    """Measures a ratio and prints its row. Twice at most, unless `tries` are asked for."""
    started, found = time.perf_counter(), [floor.ratio(folder)]
    while len(found) < (tries or 2) and (tries or found[-1] < floor.floor):
        found.append(floor.ratio(folder))
    told = ", ".join(f"{ratio:.2f}" for ratio in found)
    median = f"{statistics.median(found):.2f}" if tries else ""
    seconds = f"{time.perf_counter() - started:.0f}"
    print(f"| {floor.title} | {told} | {median} | {floor.measured} | {floor.floor} | {seconds} |", flush=True)
    return found[-1] >= floor.floor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[floor.name for floor in FLOORS])
    parser.add_argument("--tries", type=int, default=0, help="measurements of each ratio, none of which fails")
    arguments = parser.parse_args()
    chosen = [floor for floor in FLOORS if arguments.only is None or floor.name in arguments.only]
    print("| ratio of speeds | now | median | measured | floor | s |\n" + "|---" * 6 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        fallen = [floor.name for floor in chosen if not holds(floor, Path(folder), arguments.tries)]
    print(f"Load average of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.", flush=True)
    if fallen and not arguments.tries:
        print(f"Below the floor, twice: {', '.join(fallen)}. Find the change that made it slower.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
