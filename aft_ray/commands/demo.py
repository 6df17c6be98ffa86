"""aft-ray demo: the pipeline on real data that comes inside Python packages."""

from __future__ import annotations

import argparse
from pathlib import Path

import aft_ray
from aft_ray.commands.pipeline import run_pipeline
from aft_ray.recipe.config import load

SUMMARY = "the whole story on bundled real data, offline, in three to five minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the demo's recipe")


def run(parsed: argparse.Namespace) -> None:
    path = demo_recipe()
    run_pipeline(load(path, parsed.overrides), argparse.Namespace(recipe=str(path), overrides=parsed.overrides))


def demo_recipe() -> Path:
    """The demo's recipe: inside the installed package, or in the checkout's `jobs/recipes/`."""
    package = Path(aft_ray.__file__).parent
    installed = package / "recipes" / "demo.yaml"
    return installed if installed.exists() else package.parent / "jobs" / "recipes" / "demo.yaml"
