"""Teachers that cannot harm: the effect of noise, beside a real teacher or alone, on a student of each method.

    python jobs/benchmarks/probe.py                      digits with 10 labels per class, five seeds
    python jobs/benchmarks/probe.py --teachers lite0 train.labels_per_class=null    other settings of the same recipe
    ... --folder DIRECTORY                               keeps samples and features there, and takes them from there

Test accuracy of the student that validation chose, at fixed strengths. The pixels as teacher are a control: a gain from them is
no transfer, since the student has them too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aft_ray.recipe.config import Recipe, load, override
from aft_ray.regularizers import REGULARIZERS
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import Data, load_data
from aft_ray.training.inputs.stores import open_setup

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).parent / "recipes" / "digits-5-noise.yaml"
FIRST_SEED = 100
"""Seeds that no search of `make results` has seen."""


@dataclass(frozen=True)
class Method:
    """name: the regularizer's. words: its title in the table, by default the method's own."""

    name: str
    beta: float
    options: dict[str, Any] = field(default_factory=dict)
    words: str = ""

    @property
    def title(self) -> str:
        return self.words or REGULARIZERS[self.name].title


METHODS = (
    Method("none", 0.0),
    Method("aft", 5.0, {"normalize": "none"}, "AFT"),
    Method("aft", 5.0, {"normalize": "per_teacher"}, "AFT, per teacher"),
    Method("aft_probe", 20.0),
    Method("aft_probe", 20.0, {"raw_weight": 0.0}, "AFT with probes, w = 0"),
    Method("probe_kd", 4.0),
)
TEACHERS = (("lite0",), ("lite0", "noise"), ("noise",), ("pixels",))


def accuracies(recipe: Recipe, data: Data, method: Method, teachers: Sequence[str], num_seeds: int) -> list[float]:
    """Test accuracy of every seed."""
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + num_seeds):
        changes = {
            "regularizer": {"name": method.name, "beta": method.beta, **method.options},
            "teachers": [teacher.model_dump(mode="json") for teacher in recipe.teachers if teacher.name in teachers],
            "train.seed": seed,
        }
        with tempfile.TemporaryDirectory() as run:
            history = fit(
                override(recipe, changes), data, directory=Workspace.at(run), report=lambda metrics, state: None
            )
        found.append(history[-1]["test_accuracy"])
    return found


def cell(accuracies: Sequence[float], reference: Sequence[float] | None) -> str:
    """Mean and standard error in %, and the difference to the same seeds of a reference in points."""
    error = statistics.stdev(accuracies) / len(accuracies) ** 0.5
    text = f"{100 * statistics.fmean(accuracies):.1f} ± {100 * error:.1f}"
    if reference is None:
        return text
    gains = [100 * (own - other) for own, other in zip(accuracies, reference, strict=True)]
    return f"{text} ({statistics.fmean(gains):+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--teachers", nargs="+", metavar="NAME", help="one combination of teachers")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = f"workspace={asked.folder or scratch}"
        for verb in ("prepare", "extract"):
            subprocess.run([sys.executable, "-m", "aft_ray.cli", verb, str(RECIPE), workspace], check=True, cwd=ROOT)
        recipe = load(RECIPE, [workspace, *asked.overrides])
        combinations = [tuple(asked.teachers)] if asked.teachers else TEACHERS
        data = load_data(recipe, open_setup(recipe, recipe.teacher_names()).stores)
        print("| method, beta | " + " | ".join(" + ".join(names) for names in combinations) + " |")
        print("|---" * (len(combinations) + 1) + "|")
        for method in METHODS:
            sets = combinations if REGULARIZERS[method.name].needs_teachers else combinations[:1]
            found = [accuracies(recipe, data, method, teachers, asked.seeds) for teachers in sets]
            cells = [cell(row, found[0] if number else None) for number, row in enumerate(found)]
            cells += ["the same"] * (len(combinations) - len(sets))
            print(f"| {method.title}, {method.beta:g} | " + " | ".join(cells) + " |", flush=True)
    if not asked.teachers:
        print("\nIn brackets: the mean difference to the same seeds with lite0 alone, in points.")


if __name__ == "__main__":
    main()
