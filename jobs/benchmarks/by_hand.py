"""Against plain scripts: extraction, a training and a search of eight trials, in time and in lines.

    python jobs/benchmarks/by_hand.py [--steps 200] [--folder DIRECTORY]

`by_hand/` holds three plain scripts on torch, timm and a DataLoader for the demo's digits, teachers and student; they
neither check, nor resume, nor report. Each is run as its user would, from a cold start, and then the command that does the
same. Validation accuracies tell that it is the same; splits, seeds and the order of samples differ.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from aft_ray.store.workspace import Workspace
from aft_ray.training.best import best_line
from aft_ray.training.runs import RunDirectory

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "by_hand"
DEMO = ROOT / "jobs" / "recipes" / "demo.yaml"
BETAS = "[1, 2, 5, 10, 20, 40, 80, 160]"


def timed(*command: str | Path) -> tuple[float, str]:
    """Runs a command. Returns its seconds and its output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started, done.stdout


def lines_of(script: Path) -> int:
    """Lines of code: without blank lines, comments and the docstring, as formatted."""
    tree = ast.parse(script.read_text())
    return len(ast.unparse(ast.Module(tree.body[1:], [])).splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--folder", type=Path, help="where everything is written; a temporary directory by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(arguments.folder or Path(temporary), arguments.steps)


def compare(folder: Path, steps: int) -> None:
    own, workspace = folder / "by-hand", folder / "aft-ray"
    own.mkdir(parents=True, exist_ok=True)
    given = [f"workspace={workspace}", f"train.steps={steps}", "train.num_workers=1", "search.compare=[aft]"]
    given += [f"search.beta={BETAS}", "search.teachers=[[lite0, mobilenet]]", "search.final.seeds=0"]
    given += ["dataset.max_samples=null"]
    recipe_lines = len(yaml.safe_dump(yaml.safe_load(DEMO.read_text())).splitlines())
    print(f"A recipe of {recipe_lines} lines serves all of ours. {steps} steps, {os.cpu_count()} cores.\n")
    print("| stage | by hand, s | aft-ray, s | ratio | by hand, lines | by hand, val % | aft-ray, val % |")
    print("|" + "---|" * 7)
    stages = {"prepare": (), "extract": (own,), "train": (own, "20", str(steps)), "search": (own, str(steps))}
    for verb, rest in stages.items():
        theirs, lines, said = 0.0, "", ""
        if rest:
            script = SCRIPTS / f"{verb}.py"
            theirs, said = timed(script, *rest)
            lines = str(lines_of(script))
        ours, _ = timed("-m", "aft_ray.cli", verb, DEMO, *given)
        ratio = f"{ours / theirs:.2f}" if theirs else ""
        found = re.search(r"validation ([0-9.]+)", said)
        accuracies = [f"{100 * float(found[1]):.1f}" if found else "", validation(verb, workspace)]
        print("| " + " | ".join([verb, f"{theirs:.1f}", f"{ours:.1f}", ratio, lines, *accuracies]) + " |", flush=True)


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
