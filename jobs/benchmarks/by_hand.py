"""Against what a user would write: extraction, a training and a search of eight trials, in time and in lines.

    python jobs/benchmarks/by_hand.py [--steps 400] [--folder DIRECTORY]

`by_hand/` holds three plain scripts on torch, timm and a DataLoader for the demo's digits, teachers and student; they
neither check, nor resume, nor report. Each is run as its user would, from a cold start, beside the command that does the same.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "by_hand"
DEMO = ROOT / "jobs" / "recipes" / "demo.yaml"
BETAS = "[1, 2, 5, 10, 20, 40, 80, 160]"


def timed(*command: str | Path) -> tuple[float, str]:
    """Seconds to the end of a command, and the last line that it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    return seconds, (done.stdout.strip().splitlines() or [""])[-1]


def lines_of(script: Path) -> int:
    """Lines of code: without blank lines, comments and the docstring, as formatted."""
    tree = ast.parse(script.read_text())
    return len(ast.unparse(ast.Module(tree.body[1:], [])).splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--folder", type=Path, help="where everything is written; a temporary directory by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(arguments.folder or Path(temporary), arguments.steps)


def compare(folder: Path, steps: int) -> None:
    own = folder / "by-hand"
    own.mkdir(parents=True, exist_ok=True)
    given = [f"workspace={folder / 'aft-ray'}", f"train.steps={steps}", "train.num_workers=1", "search.compare=[aft]"]
    given += [f"search.beta={BETAS}", "search.teachers=[[lite0, mobilenet]]", "search.final.seeds=0"]
    given += ["dataset.max_samples=null"]
    cli = ("-m", "aft_ray.cli")
    recipe_lines = len(yaml.safe_dump(yaml.safe_load(DEMO.read_text())).splitlines())
    print(f"A recipe of {recipe_lines} lines serves all of ours. {steps} steps, {os.cpu_count()} cores.\n")
    print("| stage | by hand, s | aft-ray, s | ratio | by hand, lines | by hand says | aft-ray says |")
    print("|" + "---|" * 7)
    stages = (
        ("prepare", None, ()),
        ("extract", "extract", (own,)),
        ("train", "train", (own, "20", str(steps))),
        ("search", "search", (own, str(steps))),
    )
    for verb, script, rest in stages:
        by_hand, said = timed(SCRIPTS / f"{script}.py", *rest) if script else (0.0, "")
        ours, told = timed(*cli, verb, DEMO, *given)
        if not script:
            print(f"| {verb} | - | {ours:.1f} | - | - | | |", flush=True)
            continue
        lines = lines_of(SCRIPTS / f"{script}.py")
        print(f"| {verb} | {by_hand:.1f} | {ours:.1f} | {ours / by_hand:.2f} | {lines} | {said} | {told} |", flush=True)


if __name__ == "__main__":
    main()
