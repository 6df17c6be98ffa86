"""The findings of a study, finished or not: of each setting its record, and of methods under way what their trials say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from aft_ray.recipe.config import Recipe
from aft_ray.report.reading import read_trials
from aft_ray.report.results import Entry, Paired, TrialRow, paired_test, summarize
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.study.config import Study
from aft_ray.study.records import Record, read_record
from aft_ray.training.best import Measure, measure_of

STANDARD = "none"


@dataclass(frozen=True)
class Found:
    """A setting's findings. missing: methods that the recipe compares and that are not finished. rows: of its trials. entries:
    its lines of results, and methods without; where the setting has no standard transfer of its own, with the line of the study's
    reference. splits: how many splits of the samples it joins, see `splits.over_splits`. probes: validation accuracy of a linear
    head on the features of each set of teachers, with all labels."""

    name: str
    recipe: Recipe
    record: Record
    missing: Sequence[str]
    rows: Sequence[TrialRow]
    entries: Sequence[Entry]
    splits: int = 1

    @property
    def is_finished(self) -> bool:
        return not self.missing

    @property
    def data(self) -> str:
        """The data set in a word or two."""
        dataset = self.recipe.dataset
        return dataset.name or dataset.repo or PurePosixPath(dataset.path or str(dataset.source)).stem

    @property
    def student(self) -> str:
        student = self.recipe.student
        return f"{student.model.rpartition('/')[2]}{', pretrained' * student.pretrained}"

    @property
    def probes(self) -> Mapping[tuple[str, ...], float]:
        return {tuple(probe["teachers"]): probe["val_accuracy"] for probe in self.record.probes}

    @property
    def chosen(self) -> dict[str, Entry]:
        """Each method at the setting that validation chose, where it has final runs."""
        return {entry.method: entry for entry in self.entries if entry.is_chosen and entry.finals}

    @property
    def measure(self) -> Measure:
        return measure_of(self.rows)

    def by_teachers(self, method: str) -> dict[tuple[str, ...], Entry]:
        """The method's final runs with each set of teachers, at the setting that validation chose for the set; single teachers
        first, in the recipe's order."""
        own = [entry for entry in self.entries if entry.method == method and entry.finals]
        own.sort(key=lambda entry: -entry.measure.error_of(entry.validation))
        places = {name: number for number, name in enumerate(self.recipe.teacher_names())}
        best = {entry.teachers: entry for entry in own}
        return {s: best[s] for s in sorted(best, key=lambda names: (len(names), [places.get(n, -1) for n in names]))}

    def over_best_single(self, method: str, teachers: tuple[str, ...]) -> Paired | None:
        """The gain of several teachers over the best one of them, by validation; None where no single one has final runs."""
        entries = self.by_teachers(method)
        singles = [entries[name,] for name in teachers if (name,) in entries]
        if len(teachers) < 2 or not singles or teachers not in entries:
            return None
        best = min(singles, key=lambda entry: entry.measure.error_of(entry.validation))
        return paired_test(entries[teachers].finals, best.finals, self.measure)


def read_study(study: Study, *, of_records: bool = False) -> list[Found]:
    """The findings of every setting so far. of_records: without searches that are not finished."""
    known = {name: read_setting(study, name, of_records=of_records) for name in study.settings}
    reference = known[study.reference].rows if study.reference else []
    standard = [row for row in reference if row["regularizer.name"] == STANDARD]
    return [_with_standard(found, standard) for found in known.values()]


def read_setting(study: Study, name: str, *, of_records: bool = False) -> Found:
    """The findings of one setting so far, as far as they can be compared.

    A method that the recipe does not compare counts if it was trained with this very recipe. After a change of the recipe, the
    earlier findings of a compared method stay until its new search has a first trial.
    """
    recipe, record = study.settings[name], read_record(study.records, name)
    missing = record.missing(recipe)
    trials = read_trials(place_of(recipe)) if missing and not of_records else []
    live = [row for row in trials if row["regularizer.name"] in missing]
    left_out = {*record.outdated(recipe), *(missing if live else [])}
    rows = [row for row in record.rows if row["regularizer.name"] not in left_out] + live
    return Found(name, recipe, record, missing, rows, summarize(rows, recipe.search.metric))


def place_of(recipe: Recipe) -> Directory:
    return Workspace.at(recipe.workspace).search(recipe.run)


def _with_standard(found: Found, standard: Sequence[TrialRow]) -> Found:
    """The setting compared with `standard`, rows of the reference, if it has no standard transfer of its own."""
    if not standard or any(row["regularizer.name"] == STANDARD for row in found.rows):
        return found
    entries = summarize([*found.rows, *standard], found.recipe.search.metric)
    return replace(found, entries=entries)
