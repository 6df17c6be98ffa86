"""What a setting's search has measured beside its trials' scores: the record of a search that has just come to its end."""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

import aft_ray
from aft_ray.recipe.config import Recipe, override
from aft_ray.search.knowledge import Knowledge, train_labels
from aft_ray.search.rank import Ranking, can_rank, ranking_of
from aft_ray.search.trials import TrialRow, run_at
from aft_ray.store.files import Directory
from aft_ray.store.schema import UNLABELED
from aft_ray.study.found import place_of
from aft_ray.study.records import MethodRun, Probe, Record, Told, identity
from aft_ray.training.inputs.stores import Setup, open_setup


def record_of(setup: Setup, recipe: Recipe, rows: Sequence[TrialRow]) -> Record:
    """The record of the setup's search. recipe: of the setting, which may compare more methods. rows: of the search."""
    methods = dict.fromkeys(row["regularizer.name"] for row in rows)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    runs = [MethodRun(method=one, recipe=identity(recipe, one), date=today, code=code()) for one in methods]
    sets = list(dict.fromkeys(tuple(row["teachers"]) for row in rows if row["teachers"]))
    probes, told = measured_teachers(recipe, sets) if sets and can_rank(setup) else ([], [])
    step_ms = _step_ms(place_of(recipe), setup.recipe, rows)
    return Record(runs, machine(), samples_of(setup), step_ms, probes, list(rows), told)


def code() -> str:
    """The commit of the package, or its version outside a clone. An installed package may lie inside another project's clone."""
    file = Path(aft_ray.__file__)
    is_of_clone = _git(file.parent, "ls-files", file.name) == file.name
    return (is_of_clone and _git(file.parent, "rev-parse", "--short", "HEAD")) or aft_ray.__version__


def _git(folder: Path, *arguments: str) -> str:
    """The output of a git command; empty where it fails, or there is no git."""
    try:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


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


def measured_teachers(recipe: Recipe, sets: Sequence[tuple[str, ...]]) -> tuple[list[Probe], list[Told]]:
    """How well a linear head on each set of teachers tells the classes of validation apart, and what each teacher in them
    tells of the labels."""
    used = [teacher.model_dump(mode="json") for teacher in recipe.teachers if any(teacher.name in one for one in sets)]
    ranked = override(recipe, {"teachers": used, "search.teachers": sets})
    own_labels = _ranking(ranked)
    all_labels = own_labels
    if recipe.train.labels_per_class is not None:
        all_labels = _ranking(override(ranked, {"train.labels_per_class": None}))
    own_heads = _heads(own_labels)
    probes = [
        Probe(teachers=list(teachers), val_accuracy=accuracy, with_own_labels=own_heads[teachers])
        for teachers, accuracy in _heads(all_labels).items()
    ]
    return probes, [_told(knowledge) for knowledge in own_labels.knowledge]


def _ranking(recipe: Recipe) -> Ranking:
    return ranking_of(open_setup(recipe, recipe.teacher_names()))


def _heads(ranking: Ranking) -> dict[tuple[str, ...], float]:
    return {tuple(row["teachers"]): row["val_accuracy"] for row in ranking.rows}


def _told(knowledge: Knowledge) -> Told:
    told = Told(teacher=knowledge.teacher, r2=knowledge.r2, least_r2=knowledge.least_r2)
    if not math.isnan(knowledge.alignment):
        told["alignment"] = knowledge.alignment
    return told
