"""aft-ray pipeline: every stage in one go, from samples to the report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

from aft_ray.cluster.tasks import Helpers, in_tasks
from aft_ray.commands.check import check, open_setup
from aft_ray.commands.ending import show_next, show_places
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe, ray_cluster
from aft_ray.commands.search import show_leaderboard
from aft_ray.commands.tables import console
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.printable import counted

SUMMARY = "prepare, extract, rank, search, train the winner and report"
SECTIONS = ("dataset", "teachers", "student", "regularizer", "train", "search", "resources")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)


def run(parsed: argparse.Namespace) -> None:
    run_pipeline(load_recipe(parsed), parsed)


def run_pipeline(recipe: Recipe, parsed: argparse.Namespace) -> None:
    """Runs every stage on a cluster and shows the results. parsed: names the recipe's file and its overrides."""
    started = time.perf_counter()

    def announce(stage: str) -> None:
        console.print(f"[{time.perf_counter() - started:5.1f} s]", style="bold", end=" ")
        console.print(stage, soft_wrap=True)

    announce("check: the recipe, its data and its models")
    check(recipe, "pipeline")
    with ray_cluster(recipe, "pipeline"):
        page, run = pipeline(recipe, announce)
    show_leaderboard(recipe)
    console.print(f"report: {page}  ({time.perf_counter() - started:.0f} s in all)", soft_wrap=True)
    show_places(winner=f"{recipe.workspace}/runs/{run}")
    show_next(parsed, "predict PATH", "evaluate", "export", run=run)


def pipeline(recipe: Recipe, announce: Callable[[str], None]) -> tuple[str, str]:
    """Runs the stages that are not finished yet. Returns the report's place and the name of the winner's run.

    announce: is called as each stage starts.
    """
    from aft_ray.datasets.prepare import prepare
    from aft_ray.extraction.extract import extract
    from aft_ray.report.report import report
    from aft_ray.search.rank import can_rank, rank
    from aft_ray.search.search import read_winner, search
    from aft_ray.store.workspace import Workspace
    from aft_ray.training.train import train

    announce("prepare: samples and splits")
    prepare(recipe, helpers=Helpers(partial(in_tasks, reading=recipe.dataset.paths())))
    announce(f"extract: features of {counted(len(recipe.teachers), 'teacher')}, once for everything that follows")
    extract(recipe)
    setup = open_setup(recipe, "search")
    if can_rank(setup):
        announce("rank: how much each combination of teachers knows of the labels")
        rank(setup)
    announce("search: methods, beta and combinations of teachers on validation; then fresh seeds on test")
    search(setup)
    announce(f"train: the winner with {counted(recipe.train.num_workers, 'DDP worker')}")
    winner = read_winner(Workspace.at(recipe.workspace).search(recipe.run))
    train(open_setup(override(winner, {"workspace": recipe.workspace}), "train"))
    announce("report")
    return report(recipe), winner.run
