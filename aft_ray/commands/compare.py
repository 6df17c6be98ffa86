"""aft-ray compare: two runs side by side."""

from __future__ import annotations

import argparse
from typing import Any

from aft_ray.commands.tables import console, print_table

SUMMARY = "compare two runs: the differences of their recipes, and their scores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("first", "second"):
        parser.add_argument(name, metavar="RUN", help="a run's directory or URL, WORKSPACE/runs/NAME, or a trial's")


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.report.listing import compare

    found = compare(parsed.first, parsed.second)
    for letter, name in zip("AB", found.names, strict=True):
        console.print(f"{letter}  {name}", soft_wrap=True)
    rows = [[key, *map(_shown, values)] for key, values in found.differing.items()]
    if rows:
        print_table("Their recipes differ", ["key", "A", "B"], rows)
    else:
        console.print("Their recipes are the same.")
    print_table("Scores", ["score", "A", "B"], [[name, *map(_shown, values)] for name, values in found.scores.items()])
    console.print("One seed each: a difference may be chance. A search with several final seeds tests it.")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float) or value.is_integer():
        return f"{value}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.0f}"
