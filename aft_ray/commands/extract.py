"""aft-ray extract: features of every teacher."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from aft_ray.commands.check import check
from aft_ray.commands.ending import show_next, show_places
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe, ray_cluster
from aft_ray.commands.tables import print_table
from aft_ray.recipe.config import Recipe

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
    show_features(recipe, made)
    show_places(features=f"{recipe.workspace}/features")
    show_next(parsed, "rank", "search")


def show_features(recipe: Recipe, new_shards: Mapping[str, int]) -> None:
    """New shards of each teacher, and the samples that have no features of it."""
    from aft_ray.store.workspace import Workspace

    workspace = Workspace.at(recipe.workspace)
    rows = []
    for teacher, shards in new_shards.items():
        splits = (workspace / "features" / teacher).folders()
        manifests = [workspace.features(teacher, split).manifest() for split in splits]
        rows.append([teacher, shards, sum(len(manifest["quarantined"]) for manifest in manifests if manifest)])
    print_table(f"Features in {recipe.workspace}", ["teacher", "new shards", "quarantined"], rows)
