"""Against plain scripts: extraction, a training and a search of eight trials, in time and in lines.

    python jobs/benchmarks/by_hand.py [--steps 200] [--folder DIRECTORY] [--stages extract train]

`by_hand/` holds three plain scripts on torch, timm and a DataLoader for the demo's digits, teachers and student; they
neither check, nor resume, nor report. Each is run as its user would, from a cold start, and then the command that does the
same. Validation accuracies tell that it is the same; splits, seeds and the order of samples differ. Last come the
seconds to our first evaluation, the CPU seconds of both trainings, which other work on the machine changes less, and how busy
it was. Stages read the files of earlier stages in FOLDER.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from aft_ray.store.workspace import Workspace
from aft_ray.training.best import best_line
from aft_ray.training.runs import RunDirectory

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "by_hand"
DEMO = ROOT / "jobs" / "recipes" / "demo.yaml"
STAGES = ("prepare", "extract", "train", "search")
BETAS = "[1, 2, 5, 10, 20, 40, 80, 160]"


@dataclass(frozen=True)
class Timed:
    """seen: seconds until a file was there. cpu: seconds of the process and the children that it waited for."""

    seconds: float
    said: str
    seen: float
    cpu: float


def timed(*command: str | Path, until: Path | None = None) -> Timed:
    """Runs a command. until: the file to look for."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started, seen, before = time.perf_counter(), math.nan, _cpu()
    with subprocess.Popen(
        [sys.executable, *map(str, command)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        while until is not None and process.poll() is None and math.isnan(seen):
            time.sleep(0.02)
            seen = time.perf_counter() - started if until.exists() else math.nan
        said, _ = process.communicate()
        seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return Timed(seconds, said, seen, _cpu() - before)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def lines_of(script: Path) -> int:
    """Lines of code: without blank lines, comments and the docstring, as formatted."""
    tree = ast.parse(script.read_text())
    return len(ast.unparse(ast.Module(tree.body[1:], [])).splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--folder", type=Path, help="where everything is written; a temporary directory by default")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=STAGES, help="each needs those before it in the folder"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(arguments.folder or Path(temporary), arguments.steps, arguments.stages)


def compare(folder: Path, steps: int, verbs: Sequence[str]) -> None:
    own, workspace = folder / "by-hand", folder / "aft-ray"
    own.mkdir(parents=True, exist_ok=True)
    given = [f"workspace={workspace}", f"train.steps={steps}", "train.num_workers=1", "search.compare=[aft]"]
    given += [f"search.beta={BETAS}", "search.teachers=[[lite0, mobilenet]]", "search.final.seeds=0"]
    given += ["dataset.max_samples=null"]
    recipe_lines = len(yaml.safe_dump(yaml.safe_load(DEMO.read_text())).splitlines())
    print(f"A recipe of {recipe_lines} lines serves all of ours. {steps} steps, {os.cpu_count()} cores.\n")
    print("| stage | by hand, s | aft-ray, s | ratio | by hand, lines | by hand, val % | aft-ray, val % |")
    print("|" + "---|" * 7)
    stages = {"extract": (own,), "train": (own, "20", str(steps)), "search": (own, str(steps))}
    trained: list[Timed] = []
    for verb in verbs:
        theirs, lines, rest = Timed(0.0, "", math.nan, 0.0), "", stages.get(verb)
        if rest:
            script = SCRIPTS / f"{verb}.py"
            theirs = timed(script, *rest)
            lines = str(lines_of(script))
        metrics = workspace / "runs" / "main" / "metrics.jsonl" if verb == "train" else None
        ours = timed("-m", "aft_ray.cli", verb, DEMO, *given, until=metrics)
        trained += [theirs, ours] if metrics else []
        ratio = f"{ours.seconds / theirs.seconds:.2f}" if theirs.seconds else ""
        found = re.search(r"validation ([0-9.]+)", theirs.said)
        accuracies = [f"{100 * float(found[1]):.1f}" if found else "", validation(verb, workspace)]
        print(
            "| " + " | ".join([verb, f"{theirs.seconds:.1f}", f"{ours.seconds:.1f}", ratio, lines, *accuracies]) + " |",
            flush=True,
        )
    if trained:
        plain, full = trained
        print(f"\nFirst evaluation of our training after {full.seen:.1f} s.", end=" ")
        print(
            f"CPU seconds of the trainings: {plain.cpu:.1f} by hand, {full.cpu:.1f} ours, {full.cpu / plain.cpu:.2f}."
        )
    print(f"Load average of the last minute: {os.getloadavg()[0]:.1f}.")


def validation(verb: str, workspace: Path) -> str:
    """The best accuracy that a training or a search of ours found, in percent."""
    if verb == "train":
        return f"{100 * best_line(RunDirectory(Workspace.at(workspace).run('main')).history())['val_accuracy']:.1f}"
    if verb == "search":
        trials = pq.read_table(workspace / "searches" / "main" / "trials.parquet")
        return f"{100 * max(trials.column('val_accuracy').to_pylist()):.1f}"
    return ""


if __name__ == "__main__":
    main()
