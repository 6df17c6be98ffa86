"""aft-ray search: settings compared on validation, the best of each method on test."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from aft_ray.commands.check import open_setup
from aft_ray.commands.ending import show_next, show_places
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe, ray_cluster
from aft_ray.commands.load import show_if_busy
from aft_ray.commands.tables import console, duration, number, print_table
from aft_ray.recipe.config import Recipe

if TYPE_CHECKING:
    from aft_ray.search.estimate import SearchPlan

SUMMARY = "try strengths (beta), sets of teachers and methods on the same features; test the best of each method"
SECTIONS = ("teachers", "student", "regularizer", "train", "search", "resources")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the trials and their time, from a few steps here; write nothing"
    )


def run(parsed: argparse.Namespace) -> None:
    setup = open_setup(load_recipe(parsed), "search")

    from aft_ray.search.search import search

    if parsed.dry_run:
        from aft_ray.search.estimate import estimate_search

        show_search_plan(setup.recipe, estimate_search(setup))
        return
    search(setup, cluster=partial(ray_cluster, setup.recipe, "search"))
    show_leaderboard(setup.recipe)
    place = f"{setup.recipe.workspace}/searches/{setup.recipe.run}"
    show_places(trials=f"{place}/trials.parquet", winner=f"{place}/best.yaml")
    show_next(argparse.Namespace(recipe=f"{place}/best.yaml", overrides=[]), "train")
    show_next(parsed, "report")


def show_search_plan(recipe: Recipe, plan: SearchPlan) -> None:
    """Prints the trials of a search and their cost."""
    settings = dict.fromkeys(trial.setting for trial in plan.trials)
    rows = [
        [
            setting.method,
            f"{setting.beta:g}" if setting.teachers else "-",
            ", ".join(setting.teachers) or "-",
            ", ".join(f"{key}={value}" for key, value in setting.others) or "-",
        ]
        for setting in settings
    ]
    print_table(f"Settings of search '{recipe.run}'", ["method", "beta", "teachers", "other keys"], rows)
    if recipe.search.searcher == "optuna":
        console.print("optuna will choose other settings as it learns; these are as many random ones", soft_wrap=True)
    methods = ", ".join(f"{count} {method}" for method, count in plan.per_method().items())
    further = f", then {plan.num_further} of finalists" if plan.num_further else ""
    console.print(f"trials    {len(plan.trials)} ({methods}){further}, then {plan.num_final} final runs")
    if plan.num_over:
        console.print(f"there     {plan.num_over} of the trials are over and are not run again")
    console.print(f"a step    {1000 * plan.step_s:.1f} ms, an evaluation {plan.evaluation_s:.2f} s, on this machine")
    console.print(f"takes     {duration(plan.hours)} of one worker if no trial is stopped early")
    show_if_busy()


def show_leaderboard(recipe: Recipe) -> None:
    """Prints each method at its best setting, the teachers' own heads, and conclusions."""
    from aft_ray.report.reading import findings
    from aft_ray.training.best import ACCURACY

    found = findings(recipe)
    measure = found.entries[0].measure if found.entries else ACCURACY
    has_others = any(entry.others for entry in found.entries)
    rows = [
        [
            entry.title,
            f"{entry.beta:g}" if entry.teachers else "-",
            ", ".join(entry.teachers) or "-",
            *([", ".join(f"{key}={value}" for key, value in entry.others)] if has_others else []),
            entry.num_seeds,
            number(measure.factor * entry.validation, measure.digits),
            number(measure.factor * entry.test, measure.digits)
            + number(measure.factor * entry.test_se, measure.digits, before=" ± ", no=""),
            number(measure.factor * entry.gain, f"+{measure.digits}")
            + number(entry.p_value, ".3f", before="  p ", no=""),
        ]
        for entry in found.entries
    ]
    rows += [
        [
            head.title,
            "-",
            head.teacher,
            *(["-"] if has_others else []),
            "-",
            number(measure.factor * head.val_accuracy, measure.digits),
            number(measure.factor * head.test_accuracy, measure.digits),
            "-",
        ]
        for head in found.heads
    ]
    others = ["other keys"] if has_others else []
    heads = [measure.head(split) for split in ("validation", "test")]
    columns = ["method", "beta", "teachers", *others, "seeds", *heads, "paired gain"]
    print_table(f"Methods compared: {measure.name}, mean ± standard error over seeds", columns, rows)
    for sentence in (found.headline, *found.remarks):
        console.print(sentence, soft_wrap=True)
