"""Runs a study: every setting is prepared, extracted and searched, one after the other on one cluster.

Each stage does only work that is missing, so a study that was killed goes on, and settings of one workspace find the samples
and features of the first. The page is written after every setting.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.search.search import search
from aft_ray.study.config import Study
from aft_ray.study.found import is_finished, place_of, write_record
from aft_ray.study.report import report_study
from aft_ray.training.inputs.stores import open_setup


def run_study(study: Study, announce: Callable[[str], None]) -> str:
    """Runs the settings that are not finished and returns the page's place. `announce` hears of each as it starts and ends.

    A setting that cannot run does not keep the others from running. Raises InputError with its faults after the last one.
    """
    faults: list[str] = []
    page = report_study(study)
    for number, (name, recipe) in enumerate(study.settings.items(), 1):
        title = f"[{number}/{len(study.settings)}] {name}"
        if is_finished(recipe):
            announce(f"{title}: done before")
            continue
        announce(f"{title}: {place_of(recipe)}")
        started = time.monotonic()
        try:
            run_setting(recipe)
            announce(f"{title}: done in {time.monotonic() - started:.0f} s")
        except InputError as error:
            faults += [f"Setting {name}: {fault}" for fault in error.faults]
            announce(f"{title}: left out, see the end")
        page = report_study(study)
    if faults:
        raise InputError([*faults, f"The page {page} has the other settings; the same command goes on from here."])
    return page


def run_setting(recipe: Recipe) -> None:
    """One setting from samples to its final runs. Raises InputError if a trial failed: the next time it is tried again."""
    prepare(recipe)
    if recipe.teachers:
        extract(recipe)
    setup = open_setup(recipe, recipe.teacher_names())
    rows = search(setup)
    if failed := [row for row in rows if row["status"] == "failed"]:
        reason = failed[0]["error"] or "no reason recorded"
        raise InputError(f"{len(failed)} of {len(rows)} trials failed, the first with: {reason}")
    write_record(setup, rows)
