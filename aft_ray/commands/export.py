"""aft-ray export: a run's student in its library's own format."""

from __future__ import annotations

import argparse

from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe
from aft_ray.commands.tables import console, print_table, size
from aft_ray.recipe.errors import InputError

SUMMARY = "write a finished run's student as its own library loads it, with a model card"
SECTIONS = ()  # the run's own recipe says how its student is loaded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx, checked against torch")
    parser.add_argument(
        "--push-to-hub",
        metavar="REPO",
        help="also upload it to this repository of the model hub, with the token HF_TOKEN",
    )
    parser.add_argument("--public", action="store_true", help="a repository that the push makes is public, not private")


def run(parsed: argparse.Namespace) -> None:
    repository = parsed.push_to_hub
    if parsed.public and repository is None:
        raise InputError("--public has no meaning without --push-to-hub REPO.")
    recipe = load_recipe(parsed)

    from aft_ray.export.export import export
    from aft_ray.export.hub import check_push, push

    if repository is not None:
        check_push(repository)
    place = export(recipe, onnx=parsed.onnx, repository=repository)
    rows = [[name, size(num_bytes)] for name, num_bytes in sorted(place.sizes().items())]
    print_table(f"Exported to {place}", ["file", "size"], rows)
    console.print(f"how to load it: {place}/README.md", soft_wrap=True)
    if repository is not None:
        console.print(f"pushed to {push(place, repository, public=parsed.public)}", soft_wrap=True)
