"""aft-ray list: the names that a recipe can use."""

from __future__ import annotations

import argparse
from typing import Any

from aft_ray.commands.tables import console, print_table

SUMMARY = "list the names that a recipe can use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS)


def run(parsed: argparse.Namespace) -> None:
    KINDS[parsed.kind]()


def list_datasets() -> None:
    from aft_ray.datasets import NAMED, SOURCES
    from aft_ray.recipe.sections import DatasetConfig

    rows: list[list[Any]] = []
    for name, found in NAMED.items():
        here = "no" if found.missing(DatasetConfig(name=name)) else "yes"
        sizes = " + ".join(f"{count:,}" for count in found.num_samples)
        rows.append([name, found.modality, found.num_classes, sizes, found.licence, here, found.origin])
    columns = ["name", "modality", "classes", "samples", "licence", "here", "from"]
    print_table("Named data sets: samples are train + test", columns, rows)
    console.print("not here: 'aft-ray prepare' names the download and its place", soft_wrap=True)
    console.print(f"your own: dataset.source is one of {', '.join(SOURCES)}", soft_wrap=True)


def list_regularizers() -> None:
    from aft_ray.regularizers import REGULARIZERS

    rows = [
        [name, (kind.__doc__ or "").splitlines()[0], ", ".join(f"{beta:g}" for beta in kind.betas)]
        for name, kind in REGULARIZERS.items()
    ]
    print_table("Regularizers", ["name", "summary", "beta, by default"], rows)
    console.print(
        "your own: regularizer.name is MODULE:Class, a subclass of aft_ray.regularizers.Regularizer", soft_wrap=True
    )


def list_students() -> None:
    from aft_ray.models.students import KINDS, OWN

    rows = [[kind.form, kind.modality, kind.summary] for kind in (*KINDS.values(), OWN)]
    print_table("Students", ["model", "reads", "what it is"], rows)


def list_teachers() -> None:
    from aft_ray.models.teachers import FORMS

    print_table("Teachers", ["model", "reads", "what it is"], FORMS)


KINDS = {
    "teachers": list_teachers,
    "students": list_students,
    "datasets": list_datasets,
    "regularizers": list_regularizers,
}
