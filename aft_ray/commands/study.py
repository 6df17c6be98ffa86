"""aft-ray study: methods compared over many settings, one table and one figure."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from aft_ray.commands.check import check
from aft_ray.commands.environment import add_overrides, ray_cluster
from aft_ray.commands.own_modules import find_own_modules
from aft_ray.commands.tables import console, number, print_table
from aft_ray.recipe.errors import InputError

if TYPE_CHECKING:
    from aft_ray.study.config import Study

SUMMARY = "compare methods over many settings: one table, one figure, one page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a YAML file: a recipe with 'settings'; see jobs/recipes/paper/")
    add_overrides(parser)


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.study.config import load_study
    from aft_ray.study.run import run_study

    study = load_study(parsed.study, parsed.overrides)
    check_study(study)
    started = time.perf_counter()

    def announce(text: str) -> None:
        console.print(f"[{time.perf_counter() - started:6.1f} s] {text}", soft_wrap=True)

    recipes = sorted(study.settings.values(), key=lambda recipe: not recipe.own_classes())
    with ray_cluster(recipes[0], "pipeline", *recipes[1:]):
        page = run_study(study, announce)
    show_means(study)
    console.print(f"page: {page}", soft_wrap=True)


def check_study(study: Study) -> None:
    """Raises InputError with one line for each fault of the settings, before anything starts."""
    from aft_ray.study.config import in_settings

    found: dict[str, list[str]] = {}
    for name, recipe in study.settings.items():
        find_own_modules(recipe)
        try:
            check(recipe, "pipeline")
        except InputError as error:
            found[name] = error.faults
    if faults := in_settings(found, len(study.settings)):
        raise InputError(faults)


def show_means(study: Study) -> None:
    """Prints the mean of every method over the settings, and what that says."""
    from aft_ray.report.words import chance
    from aft_ray.study.averages import means
    from aft_ray.study.found import read_study
    from aft_ray.study.page import headline

    found = read_study(study)
    averages = means(found)
    rows = [
        [
            mean.title,
            f"{mean.relative_error:.3f}{number(mean.se, '.3f', before=' ± ', no='')}",
            mean.num_settings,
            mean.better,
            mean.worse,
            chance(mean.against_standard.p_value),
            chance(mean.against_aft.p_value),
        ]
        for mean in averages
    ]
    columns = ["method", "relative error", "settings", "better", "worse", "p, standard", "p, AFT"]
    print_table(f"Study '{study.name}': test error relative to standard transfer", columns, rows)
    console.print(headline(averages, found), soft_wrap=True)
