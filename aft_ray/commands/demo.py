"""aft-ray demo: the pipeline on real data that comes inside Python packages."""

from __future__ import annotations

import argparse
from pathlib import Path

import aft_ray
from aft_ray.commands.environment import load_recipe
from aft_ray.commands.pipeline import run_pipeline

SUMMARY = "the whole story on bundled real data, offline, in three to five minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the demo's recipe")


def run(parsed: argparse.Namespace) -> None:
    parsed.recipe = str(demo_recipe())
    run_pipeline(load_recipe(parsed), parsed)


def demo_recipe() -> Path:
    """The demo's recipe: inside the installed package, or in the checkout's `jobs/recipes/`."""
    package = Path(aft_ray.__file__).parent
    installed = package / "recipes" / "demo.yaml"
    return installed if installed.exists() else package.parent / "jobs" / "recipes" / "demo.yaml"
