"""aft-ray clean: files that a failed command has left for a next start that may never come."""

from __future__ import annotations

import argparse

from aft_ray.commands.environment import workspace_at
from aft_ray.commands.tables import console, print_table, size

SUMMARY = "delete the working files that a failed prepare left in a workspace for its next start"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="RECIPE|WORKSPACE", help="a recipe, or a workspace's directory or URL")
    parser.add_argument("--dry-run", action="store_true", help="list the files and delete nothing")


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.datasets.buckets.files import FOLDER, delete_left_overs, left_overs

    workspace = workspace_at(parsed.place)
    found = left_overs(workspace) if parsed.dry_run else delete_left_overs(workspace)
    if not found:
        return console.print(f"{workspace} holds no working files of a failed command", soft_wrap=True)
    rows = [[f"{FOLDER}/{name}", size(num_bytes)] for name, num_bytes in found.items()]
    done = "Would be deleted from" if parsed.dry_run else "Deleted from"
    print_table(f"{done} {workspace}", ["file", "size"], rows)
