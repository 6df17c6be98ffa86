"""aft-ray extract: features of every teacher."""

from __future__ import annotations

import argparse

from aft_ray.commands.check import check
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe, ray_cluster
from aft_ray.commands.tables import print_table

SUMMARY = "run every teacher over the samples once and keep the features"
SECTIONS = ("dataset", "teachers", "resources")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)
    parser.add_argument("--overwrite", action="store_true", help="compute features again that are there already")


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.extraction.extract import extract

    recipe = load_recipe(parsed)
    check(recipe, "extract")
    with ray_cluster(recipe, "extract"):
        made = extract(recipe, overwrite=parsed.overwrite)
    print_table(f"Features in {recipe.workspace}", ["teacher", "new shards"], [[n, c] for n, c in made.items()])
