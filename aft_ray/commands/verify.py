"""aft-ray verify: every manifest and checksum of a workspace."""

from __future__ import annotations

import argparse
import sys

from aft_ray.commands.environment import workspace_at
from aft_ray.commands.tables import console
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.printable import printable

SUMMARY = "re-read every manifest and checksum of a workspace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="RECIPE|WORKSPACE", help="a recipe, or a workspace's directory or URL")


def run(parsed: argparse.Namespace) -> int:
    workspace = workspace_at(parsed.place)
    stores = list(workspace.stores())
    if not stores:
        raise InputError(f"{workspace} holds neither samples nor features.")
    faults = [fault for store in stores for fault in store.faults()]
    for fault in faults:
        print(printable(fault), file=sys.stderr)
    console.print(f"{len(stores)} directories read, {len(faults)} faults")
    return 1 if faults else 0
