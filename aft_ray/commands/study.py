"""aft-ray study: methods compared over many settings, one table and one figure."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aft_ray.commands.check import check
from aft_ray.commands.environment import add_overrides, ray_cluster
from aft_ray.commands.own_modules import find_own_modules
from aft_ray.commands.signals import end_with_parent
from aft_ray.commands.study_children import run_side_by_side
from aft_ray.commands.study_plan import dry_run, simulated_nodes
from aft_ray.commands.tables import console, number, print_table
from aft_ray.recipe.errors import InputError

if TYPE_CHECKING:
    from aft_ray.study.config import Study

SUMMARY = "compare methods over many settings: one table, one figure, one page"
SECTIONS = ("dataset", "teachers", "student", "regularizer", "train", "search", "resources")
GOES_ON = "The page has the other settings; the same command goes on from here."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a YAML file or its URL: a recipe with the key 'settings'")
    add_overrides(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the trainings, their rough hours and bytes; run none of them"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="SETTING",
        default=[],
        help="run this setting and no other; give it several times for several settings",
    )
    parser.add_argument(
        "--skip-faulty",
        action="store_true",
        help="name the settings that cannot run, for example without their data, and run the others",
    )
    parser.add_argument(
        "--at-once",
        type=_count,
        metavar="N",
        help="settings to run side by side; by default as many as the cluster has room for",
    )
    parser.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)  # for `study_children`
    parser.add_argument(
        "--gpus",
        type=_devices,
        metavar="N",
        help="with --dry-run: plan for a cluster of N GPUs, 8 on a node; for this machine by default",
    )
    parser.add_argument(
        "--cpus", type=_devices, metavar="N", help="with --dry-run: CPUs of that cluster; 8 for each GPU by default"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _devices(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number, 0 or more")
    return number


def run(parsed: argparse.Namespace) -> None:
    from aft_ray.study.config import load_study

    if parsed.with_parent:
        end_with_parent()
    study = load_study(parsed.study, parsed.overrides)

    from aft_ray.study.report import report_study

    if parsed.dry_run:
        return dry_run(study, wanted(study, parsed.only), simulated_nodes(parsed.gpus, parsed.cpus))
    names, faults = runnable(study, parsed.only, skip=parsed.skip_faulty)
    if names:
        with ray_cluster(*recipes_of(study, names)):
            faults += run_settings(study, names, parsed.at_once)
    page = report_study(study)
    show_means(study)
    console.print(f"page: {page}", soft_wrap=True)
    if faults and not parsed.skip_faulty:
        raise InputError([*faults, GOES_ON])
    for fault in faults:
        console.print(f"left out: {fault}", soft_wrap=True)


def runnable(study: Study, only: Sequence[str] = (), *, skip: bool = False) -> tuple[list[str], list[str]]:
    """The unfinished settings, or only the settings `only`, that can run, and a line for each fault of the others.

    Raises InputError if `only` names no setting, or a setting has faults and `skip` is not set, and as `check_copy`.
    """
    from aft_ray.study.config import in_settings
    from aft_ray.study.report import check_copy

    check_copy(study)
    names = wanted(study, only)
    found = setting_faults(study, names)
    faults = in_settings(found, len(study.settings))
    if faults and not skip:
        raise InputError(faults)
    return [name for name in names if name not in found], faults


def wanted(study: Study, only: Sequence[str]) -> list[str]:
    """The unfinished settings, or those among them that `only` names. Raises InputError if `only` names no setting."""
    from aft_ray.study.run import unfinished

    if unknown := [name for name in only if name not in study.settings]:
        raise InputError(f"No setting {', '.join(unknown)}. Settings: {', '.join(study.settings)}.")
    return [name for name in unfinished(study) if not only or name in only]


def recipes_of(study: Study, names: Sequence[str]) -> tuple[Any, ...]:
    """Arguments of `ray_cluster` for these settings: first a recipe with classes of the user's own, if one has some."""
    first, *others = sorted((study.settings[name] for name in names), key=lambda recipe: not recipe.own_classes())
    return first, "pipeline", *others


def run_settings(study: Study, names: Sequence[str], at_once: int | None = None) -> list[str]:
    """Runs the settings `names` on the cluster of this process, `at_once` side by side; returns the faults of those that could
    not run."""
    from aft_ray.cluster.nodes import nodes_resources
    from aft_ray.study import room
    from aft_ray.study.run import run_study

    started = time.perf_counter()

    def announce(text: str) -> None:
        console.print(f"[{time.perf_counter() - started:6.1f} s] {text}", soft_wrap=True)

    at_once = min(at_once or room.at_once(study, names, nodes_resources()), len(names))
    if at_once > 1:
        return run_side_by_side(study, names, announce, at_once)
    return run_study(study, names, announce)


def setting_faults(study: Study, names: Sequence[str]) -> dict[str, list[str]]:
    """The faults of each setting that has some, found before anything starts."""
    found: dict[str, list[str]] = {}
    for name in names:
        find_own_modules(study.settings[name])
        try:
            check(study.settings[name], "pipeline")
        except InputError as error:
            found[name] = error.faults
    return found


def show_means(study: Study) -> None:
    """Prints the mean of every method over the settings, and conclusions from it."""
    from aft_ray.report.words import chance
    from aft_ray.study.averages import means
    from aft_ray.study.found import read_study
    from aft_ray.study.grids import remarks
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
    for sentence in (headline(averages, found), *remarks(found)):
        console.print(sentence, soft_wrap=True)
