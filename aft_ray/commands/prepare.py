"""aft-ray prepare: samples and splits."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from aft_ray.commands.check import check
from aft_ray.commands.ending import show_next, show_places
from aft_ray.commands.environment import add_overrides, add_recipe, helpers_of, load_recipe, ray_cluster
from aft_ray.commands.tables import LISTED_CLASSES, print_table
from aft_ray.recipe.config import Recipe

SUMMARY = "split a data set and write it as aligned shards of samples"
SECTIONS = ("dataset",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the samples that are there")


def run(parsed: argparse.Namespace) -> None:
    recipe = load_recipe(parsed)

    from aft_ray.datasets.prepare import prepare

    check(recipe, "prepare")
    with helpers_of(recipe, "prepare", ray_cluster) as helpers:
        manifests = prepare(recipe, overwrite=parsed.overwrite, helpers=helpers)
    show_samples(recipe, manifests)
    show_places(samples=f"{recipe.workspace}/samples")
    show_next(parsed, *(("extract", "plan") if recipe.teachers else ("train",)))


def show_samples(recipe: Recipe, manifests: Mapping[str, dict[str, Any]]) -> None:
    """Samples per class and split."""
    from aft_ray.datasets.sources.classes import short_name

    names = [*manifests]
    per_class = {split: manifest["samples_per_class"] for split, manifest in manifests.items()}
    classes = manifests["train"]["classes"]
    rows = [[short_name(name), *(per_class[split][name] for split in names)] for name in classes[:LISTED_CLASSES]]
    if len(classes) > LISTED_CLASSES:
        rows.append([f"... {len(classes) - LISTED_CLASSES} more", *("" for _ in names)])
    if any(manifest["num_unlabelled"] for manifest in manifests.values()):
        rows.append(["without a label", *(manifests[split]["num_unlabelled"] for split in names)])
    rows.append(["samples", *(manifests[split]["num_samples"] for split in names)])
    rows.append(["quarantined", *(len(manifests[split]["quarantined"]) for split in names)])
    rows.append(["shards", *(len(manifests[split]["shards"]) for split in names)])
    called = "output" if manifests["train"].get("task") == "regression" else "class"
    print_table(f"Samples in {recipe.workspace}", [called, *names], rows)
