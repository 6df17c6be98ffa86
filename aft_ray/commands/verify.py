"""aft-ray verify: everything that commands wrote to a workspace."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from aft_ray.commands.environment import workspace_at
from aft_ray.commands.tables import console
from aft_ray.recipe.errors import InputError, faults_of
from aft_ray.recipe.printable import counted, printable

if TYPE_CHECKING:
    from aft_ray.store.workspace import Workspace

SUMMARY = "re-read everything that a workspace holds: by checksum where there is one, else by form"
MANY = {"directory of shards": "directories of shards", "search": "searches"}
NOT_CHECKED = "report/, tensorboard/, logs/, leases/ and listing/, which no command reads results from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="RECIPE|WORKSPACE", help="a recipe, or a workspace's directory or URL")


def run(parsed: argparse.Namespace) -> int:
    workspace = workspace_at(parsed.place)
    checked = Checked(workspace)
    checked.stores()
    if any((workspace / name).folders() for name in ("runs", "searches", "predictions")) or workspace.has("rank.json"):
        checked.results()
    if not checked.counts:
        raise InputError(f"{workspace} holds neither samples nor features, runs nor searches.")
    for fault in checked.faults:
        print(printable(fault), file=sys.stderr)
    read = ", ".join(counted(count, what, MANY.get(what, "")) for what, count in checked.counts.items())
    console.print(f"{read} read: {counted(len(checked.faults), 'fault')}", soft_wrap=True)
    for note in [*checked.notes, f"not checked: {NOT_CHECKED}"]:
        console.print(note, soft_wrap=True)
    return 1 if checked.faults else 0


class Checked:
    """The files read so far, and their faults. notes: files that cannot be checked."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.counts: dict[str, int] = {}
        self.faults: list[str] = []
        self.notes: list[str] = []

    def stores(self) -> None:
        """Samples and features: every manifest and checksum, then labels, ids and numbers."""
        from aft_ray.extraction.log import check_log
        from aft_ray.store.manifest import MANIFEST
        from aft_ray.store.splits import content_faults, has_digest

        stores = list(self.workspace.stores())
        self._add("directory of shards", len(stores), [fault for store in stores for fault in store.faults()])
        if not self.faults:
            self.faults += content_faults(self.workspace)
        self.faults += faults_of(lambda: check_log(self.workspace))
        for store in stores:
            if not any(str(store) in fault for fault in self.faults) and not has_digest(store):
                unknown = "the names of its classes" if "/samples/" in f"{store}/" else "its fingerprint"
                self.notes.append(f"{store}/{MANIFEST} is of before and has no digest: {unknown} cannot be checked.")

    def results(self) -> None:
        """Runs, searches and predictions. Their readers take seconds to import."""
        from aft_ray.export.prediction_files import SUMMARY as PREDICTED
        from aft_ray.export.verification import prediction_faults, student_faults
        from aft_ray.search.trials import is_search
        from aft_ray.search.verification import ranking_faults, search_faults, trial_faults, trials_of
        from aft_ray.training.owner import OF_BEFORE
        from aft_ray.training.runs import RunDirectory
        from aft_ray.training.verification import is_run, run_faults

        runs = [RunDirectory(self.workspace.run(name)) for name in (self.workspace / "runs").folders()]
        runs = [run for run in runs if is_run(run)]
        self._add("run", len(runs), [fault for run in runs for fault in [*run_faults(run), *student_faults(run)]])
        searches = [self.workspace.search(name) for name in (self.workspace / "searches").folders()]
        searches = [search for search in searches if is_search(search)]
        trials = [trial for search in searches for trial in trials_of(search)]
        faults = [fault for trial in trials for fault in [*trial_faults(trial), *student_faults(trial)]]
        self._add("trial", len(trials), faults)
        self._add("search", len(searches), [fault for search in searches for fault in search_faults(search)])
        places = [self.workspace / "predictions" / name for name in (self.workspace / "predictions").folders()]
        places = [place for place in places if place.has(PREDICTED)]
        self._add("prediction", len(places), [fault for place in places for fault in prediction_faults(place)])
        self._add("ranking", int(self.workspace.has("rank.json")), ranking_faults(self.workspace))
        for run in [*runs, *trials]:
            if not faults_of(run.inputs) and run.run_id == OF_BEFORE:
                self.notes.append(f"{run.place} is of before: whether its files belong together cannot be checked.")

    def _add(self, what: str, count: int, faults: list[str]) -> None:
        self.faults += dict.fromkeys(faults)
        if count:
            self.counts[what] = count
