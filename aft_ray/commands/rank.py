"""aft-ray rank: how much the teachers know about the task, before training."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from aft_ray.commands.check import open_setup
from aft_ray.commands.ending import show_next, show_places
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe
from aft_ray.commands.tables import console, number, print_table
from aft_ray.recipe.config import Recipe

if TYPE_CHECKING:
    from aft_ray.search.rank import Ranking

SUMMARY = "show how much each set of teachers knows of the labels, by a linear head on their features; no training"
SECTIONS = ("teachers", "train", "search")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)


def run(parsed: argparse.Namespace) -> None:
    setup = open_setup(load_recipe(parsed), "rank")

    from aft_ray.search.rank import rank

    show_ranking(setup.recipe, rank(setup))
    show_next(parsed, "search", "search --dry-run")


def show_ranking(recipe: Recipe, ranking: Ranking) -> None:
    """Prints the combinations of teachers, and how similar the teachers are."""
    from aft_ray.store.workspace import Workspace

    rows = [
        [
            ", ".join(row["teachers"]),
            f"{100 * row['val_accuracy']:.2f}",
            f"{100 * row['knn_accuracy']:.2f}",
            f"{row['log_me']:.4f}",
        ]
        for row in ranking.rows
    ]
    print_table(
        "Teachers by validation accuracy of a linear head, with the accuracy of neighbours, %",
        ["teachers", "linear", "k-NN", "LogME"],
        rows,
    )
    console.print("LogME is a hint only: it fails where features outnumber labels.", soft_wrap=True)
    told = [
        [k.teacher, f"{100 * k.r2:.1f}", f"{100 * k.least_r2:.1f}", number(k.alignment, ".2f")]
        for k in ranking.knowledge
    ]
    columns = ["teacher", "R2 %", "must exceed", "label CKA"]
    print_table(
        "Each teacher alone: R2 of its probe, leave-one-out, and its kernel's CKA with the labels", columns, told
    )
    if len(ranking.names) > 1:
        alike = [
            [name, *(f"{value:.2f}" for value in row)] for name, row in zip(ranking.names, ranking.cka, strict=True)
        ]
        print_table("Similarity (linear CKA): 1 for equal features", ["teacher", *ranking.names], alike)
    for sentence in ranking.advice:
        console.print(sentence, soft_wrap=True)
    show_places(picture=Workspace.at(recipe.workspace) / "rank.png")
