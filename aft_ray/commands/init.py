"""aft-ray init: the first recipe for one's own data."""

from __future__ import annotations

import argparse
from typing import get_args

from aft_ray.recipe.printable import tell
from aft_ray.recipe.task import Task

SUMMARY = "look at your data and print a recipe that runs as it is: aft-ray init PATH > recipe.yaml"
COLUMNS = {
    "label": "the label; guessed by default",
    "text": "the text; guessed by default",
    "image": "the picture: a path or the bytes of a file; guessed by default",
    "id": "the samples' unique names; guessed by default, else rows are numbered",
    "split": "each row's split: train, validation or test; guessed by default",
    "group": "each row's group, such as a patient, whose rows stay in one split; none by default",
}
"""Columns of a table that an option names, and their meaning."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    about = (
        "a folder with one folder of pictures per class, a table (.csv, .tsv, .jsonl, .parquet), or tars; a path or URL"
    )
    parser.add_argument("path", metavar="PATH", help=about)
    for name, about in COLUMNS.items():
        parser.add_argument(f"--{name}", metavar="COLUMN", help=f"a table's column of {about}")
    parser.add_argument(
        "--task",
        choices=get_args(Task),
        help="one class per sample, several classes, or a number; guessed from a table's labels by default",
    )
    parser.add_argument(
        "--workspace",
        metavar="PLACE",
        help="the recipe's workspace, a directory or URL for everything that is written; work/NAME by default",
    )


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.commands.check import check
    from aft_ray.commands.first_recipe.init import init

    columns = {name: value for name in COLUMNS if (value := getattr(parsed, name)) is not None}
    made = init(parsed.path, columns, parsed.workspace, task=parsed.task)
    check(made.recipe, "pipeline")
    print(made.text, end="")
    for line in (*made.found.notes(), made.cost, "next: aft-ray pipeline FILE, the file that this recipe goes to"):
        tell(f"init: {line}")
