"""aft-ray report: the page of a workspace."""

from __future__ import annotations

import argparse

from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe
from aft_ray.commands.tables import console

SUMMARY = "write everything the workspace holds as one HTML page"
SECTIONS = ("search",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)


def run(parsed: argparse.Namespace) -> None:
    recipe = load_recipe(parsed)

    from aft_ray.report.report import report

    console.print(f"report: {report(recipe)}", soft_wrap=True)
