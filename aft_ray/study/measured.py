"""What a setting's search has measured beside its trials' scores: the record of a search that has just come to its end."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import aft_ray
from aft_ray.recipe.config import Recipe, override
from aft_ray.search.knowledge import train_labels
from aft_ray.search.rank import can_rank, ranking_of
from aft_ray.search.trials import TrialRow, run_at
from aft_ray.store.files import Directory
from aft_ray.store.schema import UNLABELED
from aft_ray.study.found import place_of
from aft_ray.study.records import MethodRun, Probe, Record, identity
from aft_ray.training.inputs.stores import Setup, open_setup


def record_of(setup: Setup, recipe: Recipe, rows: Sequence[TrialRow]) -> Record:
    """The record of the setup's search. recipe: of the setting, which may compare more methods. rows: of the search."""
    methods = dict.fromkeys(row["regularizer.name"] for row in rows)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    runs = [MethodRun(method=one, recipe=identity(recipe, one), date=today, code=code()) for one in methods]
    sets = list(dict.fromkeys(tuple(row["teachers"]) for row in rows if row["teachers"]))
    probes = list(_probes(recipe, sets)) if sets and can_rank(setup) else []
    return Record(
        runs, machine(), samples_of(setup), _step_ms(place_of(recipe), setup.recipe, rows), probes, list(rows)
    )


def code() -> str:
    """The commit of the package, or its version outside a clone."""
    command = ["git", "-C", str(Path(aft_ray.__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        found = ""
    return found or aft_ray.__version__


def machine() -> str:
    """The machine that runs the study, in a few words."""
    system = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores ({platform.machine()}), {system}"


def samples_of(setup: Setup) -> dict[str, int]:
    """In each split, and `labels` that training has."""
    labels = train_labels(setup.stores["train"], setup.recipe.train)
    counts = {split: store.num_samples for split, store in setup.stores.items()}
    return {**counts, "labels": int((labels != UNLABELED).sum()) if labels.ndim == 1 else len(labels)}


def _step_ms(search: Directory, recipe: Recipe, rows: Sequence[TrialRow]) -> dict[str, float]:
    """Of each method's final runs: their median, each the median of its evaluations but the first."""
    times: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        history = run_at(search / "trials" / row["trial"]).history() if row["stage"] == "final" else []
        if speeds := [line["samples_per_s"] for line in (history[1:] or history)]:
            rows_of_step = row.get("train.global_batch_size") or recipe.train.global_batch_size
            times[row["regularizer.name"]].append(1000 * rows_of_step / statistics.median(speeds))
    return {method: statistics.median(found) for method, found in times.items()}


def _probes(recipe: Recipe, sets: Sequence[tuple[str, ...]]) -> Iterator[Probe]:
    """How well a linear head on each set of teachers tells the classes of validation apart."""
    used = [teacher.model_dump(mode="json") for teacher in recipe.teachers if any(teacher.name in one for one in sets)]
    ranked = override(recipe, {"teachers": used, "search.teachers": sets})
    all_labels = _heads(override(ranked, {"train.labels_per_class": None}))
    own_labels = all_labels if recipe.train.labels_per_class is None else _heads(ranked)
    for teachers, accuracy in all_labels.items():
        yield Probe(teachers=list(teachers), val_accuracy=accuracy, with_own_labels=own_labels[teachers])


def _heads(recipe: Recipe) -> dict[tuple[str, ...], float]:
    ranking = ranking_of(open_setup(recipe, recipe.teacher_names()))
    return {tuple(row["teachers"]): row["val_accuracy"] for row in ranking.rows}
