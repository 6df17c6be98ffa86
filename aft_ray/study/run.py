"""Runs a study: every setting is prepared, extracted and searched, and its findings go to its record.

Each stage does only work that is missing, so a study that was killed goes on, and settings of one workspace find the samples
and features of the first. The page is written after every setting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.recipe.errors import InputError
from aft_ray.search.search import search
from aft_ray.study.config import Study
from aft_ray.study.found import place_of
from aft_ray.study.measured import record_of, samples_of
from aft_ray.study.records import check_samples, joined, read_record, write_record
from aft_ray.study.report import report_study
from aft_ray.training.inputs.stores import open_setup

Announce = Callable[[str], None]


def unfinished(study: Study) -> list[str]:
    """The settings with methods that are not in their record."""
    return [name for name, recipe in study.settings.items() if read_record(study.records, name).missing(recipe)]


def run_study(study: Study, names: Sequence[str], announce: Announce) -> list[str]:
    """Runs the settings `names`, one after the other. `announce` hears of each as it starts and ends.

    A setting that cannot run does not keep the others from running; returns the faults of all such.
    """
    faults: list[str] = []
    for number, name in enumerate(names, 1):
        title = f"[{number}/{len(names)}] {name}"
        announce(f"{title}: {place_of(study.settings[name])}")
        started = time.monotonic()
        try:
            run_setting(study, name)
            announce(f"{title}: done in {time.monotonic() - started:.0f} s")
        except InputError as error:
            faults += [f"Setting {name}: {fault}" for fault in error.faults]
            announce(f"{title}: left out, see the end")
        report_study(study)
    return faults


def run_setting(study: Study, name: str) -> None:
    """One setting from samples to its record: the methods that are not in it yet.

    Raises InputError if a trial failed, which is tried again the next time, or the record is of other samples.
    """
    recipe, before = study.settings[name], read_record(study.records, name)
    prepare(recipe)
    if recipe.teachers:
        extract(recipe)
    setup = open_setup(before.rest(recipe), recipe.with_views(recipe.teacher_names()))
    check_samples(before, recipe, samples_of(setup), f"{study.records}/{name}.json")
    rows = search(setup)
    if failed := [row for row in rows if row["status"] == "failed"]:
        reason = failed[0]["error"] or "no reason recorded"
        raise InputError(f"{len(failed)} of {len(rows)} trials failed, the first with: {reason}")
    write_record(study.records, name, joined(before, record_of(setup, recipe, rows)))
