"""aft-ray init: the first recipe for one's own data."""

from __future__ import annotations

import argparse

from aft_ray.recipe.printable import tell

SUMMARY = "look at your data and write a recipe that runs as it is: aft-ray init PATH > recipe.yaml"
COLUMNS = ("label", "text", "image", "id", "split", "group")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    about = (
        "a folder with one folder of pictures per class, a table (.csv, .tsv, .jsonl, .parquet), or tars; a path or URL"
    )
    parser.add_argument("path", metavar="PATH", help=about)
    for name in COLUMNS:
        parser.add_argument(f"--{name}", metavar="COLUMN", help=f"a table's column of the {name}; guessed by default")
    parser.add_argument("--workspace", help="a directory or URL for everything that is written; work/NAME by default")


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.commands.check import check
    from aft_ray.commands.first_recipe.init import init

    columns = {name: value for name in COLUMNS if (value := getattr(parsed, name)) is not None}
    made = init(parsed.path, columns, parsed.workspace)
    check(made.recipe, "pipeline")
    print(made.text, end="")
    for line in (*made.found.notes(), made.cost, "next: aft-ray pipeline FILE, the file that this recipe goes to"):
        tell(f"init: {line}")
