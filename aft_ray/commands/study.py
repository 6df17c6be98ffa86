"""aft-ray study: methods compared over many settings, one table and one figure."""

from __future__ import annotations

import argparse
import math
import os
import time
from typing import TYPE_CHECKING

from aft_ray.commands.check import check
from aft_ray.commands.environment import add_overrides, ray_cluster
from aft_ray.commands.own_modules import find_own_modules
from aft_ray.commands.tables import console, duration, number, print_table, size
from aft_ray.recipe.errors import InputError

if TYPE_CHECKING:
    from aft_ray.study.config import Study
    from aft_ray.study.estimate import StudyPlan

SUMMARY = "compare methods over many settings: one table, one figure, one page"
GPUS_OF_NODE, CPUS_PER_GPU = 8, 8
GUESS = (
    "20 TFLOP/s of a GPU and 20 GFLOP/s of a core; no trial is stopped early; real devices differ threefold either way"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a YAML file: a recipe with 'settings'; see jobs/recipes/paper/")
    add_overrides(parser)
    parser.add_argument("--dry-run", action="store_true", help="print trainings, rough hours and bytes; start nothing")
    parser.add_argument(
        "--gpus",
        type=float,
        metavar="N",
        help="for --dry-run: GPUs of the cluster, 8 on a node; this machine's by default",
    )
    parser.add_argument(
        "--cpus", type=float, metavar="N", help="for --dry-run: CPUs of the cluster; 8 for each GPU by default"
    )


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.study.config import load_study

    study = load_study(parsed.study, parsed.overrides)
    if parsed.dry_run:
        return dry_run(study, simulated_nodes(parsed.gpus, parsed.cpus))
    from aft_ray.study.run import run_study

    check_study(study)
    started = time.perf_counter()

    def announce(text: str) -> None:
        console.print(f"[{time.perf_counter() - started:6.1f} s] {text}", soft_wrap=True)

    recipes = sorted(study.settings.values(), key=lambda recipe: not recipe.own_classes())
    with ray_cluster(recipes[0], "pipeline", *recipes[1:]):
        page = run_study(study, announce)
    show_means(study)
    console.print(f"page: {page}", soft_wrap=True)


def check_study(study: Study) -> None:
    """Raises InputError with one line for each fault of the settings, before anything starts."""
    from aft_ray.study.config import in_settings

    found: dict[str, list[str]] = {}
    for name, recipe in study.settings.items():
        find_own_modules(recipe)
        try:
            check(recipe, "pipeline")
        except InputError as error:
            found[name] = error.faults
    if faults := in_settings(found, len(study.settings)):
        raise InputError(faults)


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


def dry_run(study: Study, nodes: list[dict[str, float]]) -> None:
    """Prints the study's runs and their rough cost. Names models and data that are not on this machine, and fetches none.

    Raises InputError with one line for each fault of the settings.
    """
    from aft_ray.commands.check import faults_and_absent
    from aft_ray.study.config import in_settings
    from aft_ray.study.estimate import plan_study

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
    show_plan(study, plan_study(study, nodes))
    for line in dict.fromkeys(absent):
        console.print(f"not here  {line}", soft_wrap=True)


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
            number(data.samples, ",.0f", no="?"),
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
    console.print(f"cluster   {devices} on {len(plan.nodes)} node{'s' * (len(plan.nodes) > 1)}")
    console.print(f"trainings {plan.trainings:,} in {len(plan.settings)} settings")
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


def _size(num_bytes: float) -> str:
    return "?" if math.isnan(num_bytes) else size(num_bytes)


def _hours(hours: float) -> str:
    return "?" if math.isnan(hours) else duration(hours)


def show_means(study: Study) -> None:
    """Prints the mean of every method over the settings, and conclusions from it."""
    from aft_ray.report.words import chance
    from aft_ray.study.averages import means
    from aft_ray.study.found import read_study
    from aft_ray.study.page import headline

    found = read_study(study)
    averages = means(found)
    rows = [
        [
            mean.title,
            f"{mean.relative_error:.3f}{number(mean.se, '.3f', before=' ± ', no='')}",
            mean.num_settings,
            mean.better,
            mean.worse,
            chance(mean.against_standard.p_value),
            chance(mean.against_aft.p_value),
        ]
        for mean in averages
    ]
    columns = ["method", "relative error", "settings", "better", "worse", "p, standard", "p, AFT"]
    print_table(f"Study '{study.name}': test error relative to standard transfer", columns, rows)
    console.print(headline(averages, found), soft_wrap=True)
