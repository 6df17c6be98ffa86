"""aft-ray plan: the cost of an extraction."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from aft_ray.cluster.address import names_cluster
from aft_ray.commands.check import check
from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe, ray_cluster
from aft_ray.commands.load import show_if_busy
from aft_ray.commands.tables import console, duration, print_table, size
from aft_ray.recipe.config import Recipe

if TYPE_CHECKING:
    from aft_ray.extraction.estimate import Estimate

SUMMARY = "estimate an extraction's work and cost from a short trial of every teacher; write nothing"
SECTIONS = ("dataset", "teachers", "resources")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_overrides(parser)


def run(parsed: argparse.Namespace) -> None:
    recipe = load_recipe(parsed)

    from aft_ray.extraction.estimate import plan

    check(recipe, "plan")
    with ray_cluster(recipe, "plan"):
        found = plan(recipe)
    show_estimate(recipe, found)
    if not names_cluster():
        show_if_busy()


def show_estimate(recipe: Recipe, found: Estimate) -> None:
    """Prints the cost of an extraction."""
    from aft_ray.cluster.waves import in_words

    rows = [
        [
            teacher.name,
            teacher.feature_dim,
            teacher.samples,
            "?" if teacher.shards_missing is None else teacher.shards_missing,
            size(teacher.feature_bytes),
            f"{teacher.samples_per_s:.1f}",
            f"{teacher.load_s:.1f} s",
            duration(teacher.hours),
            f"{teacher.gpu_hours:.2f}",
        ]
        for teacher in found.teachers
    ]
    columns = ["teacher", "width", "to do", "shards", "in all", "samples/s", "loads in", "takes", "GPU-h"]
    print_table(f"Extraction for {recipe.workspace}: samples/s are one actor's", columns, rows)
    total = sum(found.samples.values())
    decoded = sum(teacher.crop_bytes for teacher in found.teachers) * total
    counts = ", ".join(f"{count} {split}" for split, count in found.samples.items())
    console.print(f"samples   {counts}; {size(found.content_bytes)} encoded, {size(decoded)} decoded in passing")
    console.print(
        f"decoding  {1000 * found.decode_s:.2f} ms of a CPU per sample, {duration(found.decode_hours)} in all"
    )
    if len(found.waves) > 1:
        console.print(f"waves     no room for all teachers at once: {in_words(found.waves)}", soft_wrap=True)
    slowest = max(found.teachers, key=lambda teacher: teacher.hours)
    limit = slowest.name if slowest.hours >= found.decode_hours else "decoding; more CPUs would help"
    console.print(f"takes     {duration(found.hours)}, limited by {limit}")
    if found.idle_gpus >= 1:
        console.print(
            f"GPUs      {found.idle_gpus:g} of the cluster would be idle; raise teachers[].num_gpus or num_actors"
        )
    if found.free_bytes is not None:
        needed = sum(teacher.feature_bytes for teacher in found.teachers)
        verdict = "" if found.free_bytes > needed else "  NOT ENOUGH"
        console.print(f"disk      {size(needed)} of features, {size(found.free_bytes)} free{verdict}")
