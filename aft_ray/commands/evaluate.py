"""aft-ray evaluate: a run's student on one split, class by class."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from aft_ray.commands.ending import show_next
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe
from aft_ray.commands.tables import LISTED_CLASSES, console, print_table
from aft_ray.recipe.config import Recipe

SUMMARY = "test a finished run's student class by class"
SECTIONS = ("train",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)
    parser.add_argument("--split", default="test", help="train, validation or test (default)")
    parser.add_argument("--probabilities", action="store_true", help="keep the probabilities of all classes")


def run(parsed: argparse.Namespace) -> None:
    recipe = load_recipe(parsed)

    from aft_ray.export.evaluate import evaluate

    show_scores(recipe, evaluate(recipe, parsed.split, all_probabilities=parsed.probabilities))
    show_next(parsed, "predict PATH", "export")


def show_scores(recipe: Recipe, result: Mapping[str, Any]) -> None:
    """Prints a run's scores on one split."""
    from aft_ray.export.scores import SCORES

    rows = [[text, f"{result[key]:.4f}"] for key, text in SCORES.items() if result.get(key) is not None]
    title = f"Run '{recipe.run}' on {result['num_samples']} samples of split {result['split']}"
    print_table(title, ["score", "value"], rows)
    _show_classes(result["per_class"], "output" if "mse" in result else "class")
    split, place = result["split"], f"{recipe.workspace}/runs/{recipe.run}"
    matrix = " and the confusion matrix" if any(key.startswith("confusion") for key in result) else ""
    console.print(f"all scores{matrix}: {place}/evaluation-{split}.json", soft_wrap=True)
    console.print(f"every sample: {place}/predictions-{split}.parquet", soft_wrap=True)


def _show_classes(classes: Sequence[dict[str, Any]], called: str) -> None:
    """Prints all classes, or outputs, in their order, or the worst if there are many."""
    if not classes:  # many classes, and no sample with a label
        return
    title, shown = f"{called} by {called}".capitalize(), list(classes)
    if len(classes) > LISTED_CLASSES:
        by = "f1" if "f1" in classes[0] else "r2"
        shown = sorted(classes, key=lambda row: math.inf if row[by] is None else row[by])[:LISTED_CLASSES]
        title = (
            f"The {LISTED_CLASSES} classes with the lowest {by}; {len(classes) - LISTED_CLASSES} more are not listed"
        )
    columns = list(classes[0])
    rows = [["-" if v is None else f"{v:.4f}" if isinstance(v, float) else v for v in row.values()] for row in shown]
    print_table(title, [called if column == "class" else column.replace("_", " ") for column in columns], rows)
