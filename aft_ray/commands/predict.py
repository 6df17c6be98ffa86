"""aft-ray predict: a run's student on new files or texts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from aft_ray.commands.environment import add_overrides, add_recipe, load_recipe, ray_cluster
from aft_ray.commands.tables import LISTED_CLASSES, console, print_table
from aft_ray.recipe.printable import counted, tell

SUMMARY = "ask a finished run's student about files or texts without labels"
FIRST_ROWS = 5
"""Predictions that are shown."""
PATH = "an image or a folder of them, lines of text (.txt), or a table with the recipe's columns; a path or URL"
SECTIONS = ("train", "resources")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("path", metavar="PATH", help=PATH)
    add_overrides(parser)
    place = "a directory or URL, apart from PATH; <workspace>/predictions/<run>/ by default"
    parser.add_argument("--output", metavar="DIRECTORY", help=place)
    parser.add_argument("--probabilities", action="store_true", help="keep the probabilities of all classes")


def run(parsed: argparse.Namespace) -> None:
    recipe = load_recipe(parsed)

    from aft_ray.cluster.address import names_cluster
    from aft_ray.export.predict import HERE_S, open_prediction

    prediction = open_prediction(recipe, parsed.path, output=parsed.output)
    if left_out := prediction.unseen.left_out:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        files = counted(sum(left_out.values()), "file that is not a picture", "files that are not pictures")
        tell(f"predict: ignored {files}: {kinds}")
    if (earlier := prediction.earlier_source) not in (None, parsed.path):
        tell(
            f"predict: the predictions for {earlier} in {prediction.place} are replaced; --output DIRECTORY keeps both"
        )
    cluster, here_s = partial(ray_cluster, recipe, "predict"), 0.0 if names_cluster() else HERE_S
    summary = prediction.make(cluster, here_s=here_s, all_probabilities=parsed.probabilities)
    show_predictions(parsed.path, summary)


def show_predictions(path: str, summary: Mapping[str, Any]) -> None:
    """Prints how often each class was predicted for the samples at `path`."""
    counts = sorted(summary["counts"].items(), key=lambda item: -item[1])
    rows: list[list[Any]] = [[name, count] for name, count in counts[:LISTED_CLASSES]]
    if len(counts) > LISTED_CLASSES:
        rows.append([f"... {len(counts) - LISTED_CLASSES} more", sum(count for _, count in counts[LISTED_CLASSES:])])
    if not counts:  # of a regression
        rows.append(["numbers", summary["num_samples"] - summary["num_errors"]])
    rows.append(["cannot be read", summary["num_errors"]])
    print_table(f"{counted(summary['num_samples'], 'sample')} of {path}", ["predicted", "samples"], rows)
    _show_first(summary)
    console.print(f"predictions: {summary['output']}", soft_wrap=True)


def _show_first(summary: Mapping[str, Any]) -> None:
    """Prints the first rows of the first file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from aft_ray.store.workspace import Workspace

    if not summary["files"]:
        return
    columns = ["sample_id", "predicted", "probability", "error"]
    content = Workspace.at(summary["output"]).read(next(iter(summary["files"])))
    table = pq.read_table(pa.BufferReader(content)).slice(0, FIRST_ROWS)
    shown = [name for name in columns if name in table.column_names and table[name].null_count < len(table)]
    rows = [[_cell(row[name]) for name in shown] for row in table.select(shown).to_pylist()]
    print_table("The first of them", shown, rows)


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
