"""aft-ray extract: features of every teacher."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from aft_ray.commands.check import check
from aft_ray.commands.ending import show_next, show_places
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe, ray_cluster
from aft_ray.commands.tables import console, print_table
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError, faults_of

if TYPE_CHECKING:
    from aft_ray.cluster.ranges import Range

SUMMARY = "run every teacher over the samples once and keep the features"
SECTIONS = ("dataset", "teachers", "resources")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the features of these teachers and compute all of them again"
    )
    parser.add_argument(
        "--range",
        metavar="i/N",
        help="compute shards i, i+N, i+2N and so on alone; other processes compute the rest; i is 0 to N-1",
    )


def run(parsed: argparse.Namespace) -> None:
    only = _range(parsed)
    recipe = load_recipe(parsed)
    check(recipe, "extract")
    from aft_ray.extraction.extract import extract, extract_range

    cluster = partial(ray_cluster, recipe, "extract")
    made = (
        extract_range(recipe, only, cluster=cluster)
        if only
        else extract(recipe, overwrite=parsed.overwrite, cluster=cluster)
    )
    show_features(recipe, made)
    show_places(features=f"{recipe.workspace}/features")
    if only and (lacking := incomplete(recipe)):
        console.print(
            f"Range {only} is done; shards of other ranges are still missing: {', '.join(lacking)}.", soft_wrap=True
        )
    else:
        show_next(parsed, *(("rank", "search") if has_classes(recipe) else ("search", "train")))


def _range(parsed: argparse.Namespace) -> Range | None:
    """The range that the arguments ask for."""
    from aft_ray.cluster.ranges import Range

    if parsed.range is None:
        return None
    faults = faults_of(lambda: Range.parsed(parsed.range))
    if parsed.overwrite:
        faults.append(
            "--overwrite would delete what other ranges compute. Run 'aft-ray extract --overwrite' without --range, or delete"
            " the teachers' directories in features/ and start all ranges."
        )
    if faults:
        raise InputError(faults)
    return Range.parsed(parsed.range)


def incomplete(recipe: Recipe) -> list[str]:
    """The directories of features that no process has completed yet, such as `vit/train`."""
    from aft_ray.store.manifest import MANIFEST
    from aft_ray.store.workspace import Workspace

    workspace, views = Workspace.at(recipe.workspace), recipe.with_views(recipe.teacher_names())
    pairs = [(view, split) for view in views for split in recipe.extracted_splits()]
    return [f"{view}/{split}" for view, split in pairs if not workspace.features(view, split).has(MANIFEST)]


def has_classes(recipe: Recipe) -> bool:
    """Whether each sample has one class: `rank` needs that."""
    from aft_ray.store.workspace import Workspace

    manifest = Workspace.at(recipe.workspace).samples("train").manifest() or {}
    return manifest.get("task", "classification") == "classification"


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
