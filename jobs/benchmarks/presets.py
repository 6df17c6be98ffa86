"""Presets on real data: standard transfer with each `train.preset`, and AFT and aft_probe on top of each.

    python jobs/benchmarks/presets.py FOLDER --prepare      samples and features, once; needs Ray
    python jobs/benchmarks/presets.py FOLDER                the trainings that FOLDER lacks, in this process, and the tables
    ... --sets digits                                       of some sets alone

A strength is chosen on validation, with two seeds; test accuracies are of five fresh seeds, of the student that validation
chose. A preset is taken as it is, beside the recipe's steps and batch; `paper` has the recipe's learning rate, which was chosen
for standard transfer. Standard transfer is also trained without the preset's augmentation. FOLDER/runs.jsonl has every run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from aft_ray.recipe.config import load
from aft_ray.recipe.presets import PRESETS
from aft_ray.regularizers import REGULARIZERS
from aft_ray.store.workspace import Workspace
from aft_ray.training.best import best_line
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import Data, load_data
from aft_ray.training.inputs.stores import open_setup

ROOT = Path(__file__).parents[2]
RECIPES = Path(__file__).parent / "recipes" / "presets"
SETS = {"digits": "", "reviews": "data/reviews", "clothes": "data/fashion/usr/share/datasets/fashion-mnist"}
"""Where FOLDER has their data, if no package brings it."""
BETAS = {"none": (0.0,), "aft": (1.25, 20.0), "aft_probe": (1.25, 20.0)}
CHOICE, FINAL = range(2), range(100, 105)
"""Seeds."""


@dataclass(frozen=True)
class Run:
    """One training; `augmented` says whether the preset's own augmentation is on."""

    data: str
    preset: str
    method: str
    beta: float
    seed: int
    augmented: bool = True


@dataclass
class Runs:
    """The trainings of one set. done: validation and test accuracy of all runs that FOLDER has."""

    folder: Path
    data: str
    done: dict[Run, tuple[float, float]]

    def __call__(
        self, preset: str, method: str, beta: float, seed: int, *, augmented: bool = True
    ) -> tuple[float, float]:
        run = Run(self.data, preset, method, beta, seed, augmented)
        if run not in self.done:
            self.done[run] = self._train(run)
            with (self.folder / "runs.jsonl").open("a") as file:
                file.write(json.dumps({**asdict(run), "accuracies": self.done[run]}) + "\n")
        return self.done[run]

    def chosen(self, preset: str, method: str) -> float:
        """The strength of the best mean validation accuracy."""
        betas = BETAS[method]
        if len(betas) == 1:
            return betas[0]
        return max(betas, key=lambda beta: statistics.fmean(self(preset, method, beta, seed)[0] for seed in CHOICE))

    def test(self, preset: str, method: str, *, augmented: bool = True) -> list[float]:
        """Test accuracy of the fresh seeds, at the chosen strength."""
        beta = self.chosen(preset, method)
        return [self(preset, method, beta, seed, augmented=augmented)[1] for seed in FINAL]

    @cached_property
    def samples(self) -> Data:
        recipe = load(RECIPES / f"{self.data}.yaml", overrides(self.folder, self.data))
        return load_data(recipe, open_setup(recipe, recipe.teacher_names()).stores)

    def _train(self, run: Run) -> tuple[float, float]:
        given = [f"train.preset={run.preset}", f"train.seed={run.seed}", f"regularizer.name={run.method}"]
        given += [f"regularizer.beta={run.beta}", *([] if run.augmented else ["train.augment=none"])]
        recipe = load(RECIPES / f"{self.data}.yaml", overrides(self.folder, self.data) + given)
        with tempfile.TemporaryDirectory() as place:
            history = fit(recipe, self.samples, directory=Workspace.at(place), report=lambda metrics, state: None)
        return best_line(history)["val_accuracy"], history[-1]["test_accuracy"]


def overrides(folder: Path, data: str) -> list[str]:
    """Where FOLDER has the data and the samples of a set."""
    place = [f"dataset.path={folder / SETS[data]}"] if SETS[data] else []
    return [f"workspace={folder / 'workspaces' / data}", *place]


def table(runs: Runs) -> Iterator[str]:
    """Lines of Markdown: a preset a line, and the difference to standard transfer with the same preset and seeds."""
    titles = [REGULARIZERS[method].title for method in BETAS]
    yield f"| {runs.data} | {' | '.join(titles)} | {titles[0]}, augment none |"
    yield "|---" * (len(titles) + 2) + "|"
    for preset in PRESETS:
        plain = runs.test(preset, "none")
        cells = [cell(plain)]
        cells += [f"{cell(own, plain)}, beta {runs.chosen(preset, method):g}" for method, own in _on_top(runs, preset)]
        without = plain if PRESETS[preset]["augment"] == "none" else runs.test(preset, "none", augmented=False)
        yield f"| {preset} | {' | '.join(cells)} | {'the same' if without is plain else cell(without, plain)} |"


def _on_top(runs: Runs, preset: str) -> Iterator[tuple[str, list[float]]]:
    for method in BETAS:
        if method != "none":
            yield method, runs.test(preset, method)


def cell(accuracies: Sequence[float], reference: Sequence[float] | None = None) -> str:
    """Mean and standard error in %, and the mean difference to the same seeds of a reference, with its own, in points."""
    text = shown([100 * accuracy for accuracy in accuracies], "")
    if reference is None:
        return text
    gains = [100 * (own - other) for own, other in zip(accuracies, reference, strict=True)]
    return f"{text} ({shown(gains, '+')})"


def shown(numbers: Sequence[float], sign: str) -> str:
    return f"{statistics.fmean(numbers):{sign}.1f} ± {statistics.stdev(numbers) / len(numbers) ** 0.5:.1f}"


def prepare(folder: Path, data: str) -> None:
    for verb in ("prepare", "extract"):
        recipe = str(RECIPES / f"{data}.yaml")
        subprocess.run(
            [sys.executable, "-m", "aft_ray.cli", verb, recipe, *overrides(folder, data)], check=True, cwd=ROOT
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="has the data that the recipes name")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--prepare", action="store_true")
    asked = parser.parse_args()
    folder, done = asked.folder.resolve(), {}
    if (folder / "runs.jsonl").exists():
        for line in (folder / "runs.jsonl").read_text().splitlines():
            row = json.loads(line)
            validation, test = row.pop("accuracies")
            done[Run(**row)] = (validation, test)
    for data in asked.sets:
        if asked.prepare:
            prepare(folder, data)
        else:
            print(*table(Runs(folder, data, done)), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
