"""aft-ray export: a run's student in its library's own format."""

from __future__ import annotations

import argparse

from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe
from aft_ray.commands.tables import console, print_table, size

SUMMARY = "write a finished run's student as its own library loads it, with a model card"
SECTIONS = ()  # the run's own recipe says how its student is loaded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx, checked against torch")


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.export.export import export

    place = export(load_recipe(parsed), onnx=parsed.onnx)
    rows = [[name, size(num_bytes)] for name, num_bytes in sorted(place.sizes().items())]
    print_table(f"Exported to {place}", ["file", "size"], rows)
    console.print(f"how to load it: {place}/README.md", soft_wrap=True)
