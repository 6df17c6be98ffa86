"""The whole story in one go: prepare, extract, search, train the winner, report."""

from __future__ import annotations

from collections.abc import Callable

from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import Recipe, load_text, override
from aft_ray.report.report import report
from aft_ray.search.rank import has_one_class_per_sample, rank
from aft_ray.search.search import search
from aft_ray.store.workspace import Workspace
from aft_ray.training.train import train


def pipeline(recipe: Recipe, announce: Callable[[str], None]) -> str:
    """Runs every stage and returns the report's place. What is finished already is not done again.

    `announce` is told each stage as it starts.
    """
    announce("prepare: samples and splits")
    prepare(recipe)
    announce(f"extract: features of {len(recipe.teachers)} teachers, once for everything that follows")
    extract(recipe)
    if recipe.teachers and has_one_class_per_sample(recipe):
        announce("rank: what a linear probe reads from each combination of teachers")
        rank(recipe)
    announce("search: methods, beta and combinations of teachers on validation; then fresh seeds on test")
    search(recipe)
    announce(f"train: the winner with {recipe.train.num_workers} DDP workers")
    winner = load_text(Workspace.at(recipe.workspace).search(recipe.run).read("best.yaml").decode())
    train(override(winner, {"workspace": recipe.workspace}))
    announce("report")
    return report(recipe)
