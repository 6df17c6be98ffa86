"""What `aft-ray study --dry-run` tells: trainings, rough hours and bytes of a study, on a simulated cluster."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aft_ray.commands.own_modules import find_own_modules
from aft_ray.commands.tables import console, duration, number, print_table, size
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.printable import counted

if TYPE_CHECKING:
    from aft_ray.recipe.config import Recipe
    from aft_ray.study.config import Study
    from aft_ray.study.estimate import DataCost, StudyPlan

GPUS_OF_NODE, CPUS_PER_GPU = 8, 8
GUESS = (
    "20 TFLOP/s of a GPU and 20 GFLOP/s of a core; no trial is stopped early; real devices differ threefold either way"
)


def simulated_nodes(gpus: float | None, cpus: float | None) -> list[dict[str, float]]:
    """Nodes of a cluster with these devices, of this machine where a number is not given."""
    import torch

    if gpus is None and cpus is None:
        return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]
    gpus = gpus or 0.0
    count = max(1, math.ceil(gpus / GPUS_OF_NODE))
    cpus = cpus or CPUS_PER_GPU * max(1.0, gpus)
    whole = [min(GPUS_OF_NODE, gpus - GPUS_OF_NODE * number) for number in range(count)]
    return [{"CPU": cpus / count, "GPU": on_node} for on_node in whole]


def dry_run(study: Study, names: Sequence[str], nodes: list[dict[str, float]]) -> None:
    """Prints the runs of the study's settings `names` and their rough cost. Names models and data that are not on this machine,
    and fetches none.

    Raises InputError with one line for each fault of the settings.
    """
    from aft_ray.commands.check import faults_and_absent
    from aft_ray.report.results import method_title
    from aft_ray.study.config import in_settings
    from aft_ray.study.estimate import plan_study
    from aft_ray.study.records import read_record

    left_out = len(study.settings) - len(names)
    whole = {name: study.settings[name] for name in names}
    study = replace(study, settings={name: read_record(study.records, name).rest(whole[name]) for name in names})
    faults: dict[str, list[str]] = {}
    absent: list[str] = []
    for name, recipe in study.settings.items():
        find_own_modules(recipe)
        own, missing = faults_and_absent(recipe)
        absent += missing
        if own:
            faults[name] = own
    if faults:
        raise InputError(in_settings(faults, len(study.settings)))
    if names:
        show_plan(study, plan_study(study, nodes))
    if left_out:
        console.print(f"left out  {left_out} of {left_out + len(names)} settings: finished, or not named by --only")
    for name, recipe in study.settings.items():
        done = _methods(whole[name]) - _methods(recipe)
        if done:
            console.print(
                f"left out  of {name}: {', '.join(sorted(map(method_title, done)))}: finished", soft_wrap=True
            )
    for line in dict.fromkeys(absent):
        console.print(f"not here  {line}", soft_wrap=True)


def _methods(recipe: Recipe) -> set[str]:
    return set(recipe.search.methods(recipe.regularizer.name))


def show_plan(study: Study, plan: StudyPlan) -> None:
    """Prints the trainings of every setting and the features of every workspace."""
    from aft_ray.cluster.waves import in_words

    rows = [
        [s.name, s.trials, s.finals, number(s.hours, ".3g", no="?"), "GPU" if s.on_gpu else "core"]
        for s in plan.settings
    ]
    print_table(f"Settings of study '{study.name}'", ["setting", "trials", "final runs", "hours", "of one"], rows)
    of_data = [
        [
            data.place,
            _inputs(data),
            sum(map(len, data.waves)),
            len(data.waves),
            _size(data.feature_bytes),
            _hours(data.hours),
        ]
        for data in plan.data
    ]
    print_table("Features, each teacher once", ["workspace", "samples", "teachers", "waves", "bytes", "takes"], of_data)
    for words in dict.fromkeys(in_words(data.waves) for data in plan.data if len(data.waves) > 1):
        console.print(f"waves     no room for all teachers at once: {words}", soft_wrap=True)
    devices = ", ".join(f"{sum(node.get(kind, 0) for node in plan.nodes):g} {kind}s" for kind in ("GPU", "CPU"))
    console.print(f"cluster   {devices} on {counted(len(plan.nodes), 'node')}")
    console.print(f"trainings {plan.trainings:,} in {counted(len(plan.settings), 'setting')}")
    by_kind = {
        kind: sum(s.hours for s in plan.settings if s.on_gpu is on and s.hours == s.hours)
        for kind, on in (("GPU", True), ("core", False))
    }
    console.print(
        f"work      {', '.join(f'{hours:.3g} {kind}-hours' for kind, hours in by_kind.items() if hours)} of training"
    )
    console.print(
        f"takes     roughly {duration(plan.extraction_hours)} of extraction and {duration(plan.training_hours)} of training"
    )
    console.print(f"disk      {_size(plan.bytes)} of features and students")
    console.print(f"assumed   {GUESS}", soft_wrap=True)
    unknown = dict.fromkeys(name for data in plan.data for name in data.unknown)
    students = [s.name for s in plan.settings if s.hours != s.hours]
    for what, names in (("teachers", [*unknown]), ("students of settings", students)):
        if names:
            console.print(f"unknown   the size of {what} {', '.join(names)}: not counted", soft_wrap=True)


def _inputs(data: DataCost) -> str:
    """Samples, and pictures where there are fewer."""
    shared = f" of {data.pictures:,.0f} pictures" if data.pictures < data.samples else ""
    return number(data.samples, ",.0f", no="?") + shared


def _size(num_bytes: float) -> str:
    return "?" if math.isnan(num_bytes) else size(num_bytes)


def _hours(hours: float) -> str:
    return "?" if math.isnan(hours) else duration(hours)
