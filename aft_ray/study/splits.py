"""Settings that differ in the split of the samples alone count as one: its final runs are paired by split and seed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from aft_ray.recipe.config import Recipe, fingerprint
from aft_ray.report.results import Entry, TrialRow, entry_of
from aft_ray.study.found import STANDARD, Found


def over_splits(found: Sequence[Found]) -> list[Found]:
    """The findings with the splits of a data set joined, where several `dataset.split_seed` were run.

    A split without final runs does not count. Standard errors and p-values include the choice of the split. Each split has its
    own choice of beta and other keys, so a joined entry names none: its beta is NaN where they differ.
    """
    groups: dict[str, list[Found]] = {}
    for one in found:
        groups.setdefault(_without_split(one.recipe), []).append(one)
    return [_joined(splits) if len(splits) > 1 else splits[0] for splits in groups.values()]


def _without_split(recipe: Recipe) -> str:
    content = recipe.model_dump(mode="json", exclude={"workspace", "run"})
    del content["dataset"]["split_seed"]
    return fingerprint(content)


def _joined(of_data: Sequence[Found]) -> Found:
    """One setting of several splits; a method counts where every split that has been run has its final runs."""
    name = os.path.commonprefix([one.name for one in of_data]).rstrip("-_.") or of_data[0].name
    missing = list(dict.fromkeys(method for one in of_data for method in one.missing))
    splits = [one for one in of_data if one.chosen] or of_data
    methods = [method for method in splits[0].chosen if all(method in one.chosen for one in splits)]
    rows = [_in_split(row, number) for number, one in enumerate(splits) for row in one.rows]
    finals = {method: _finals(splits, method) for method in methods}
    standard = finals.get(STANDARD, [])
    entries = [_entry(splits, method, finals[method], standard) for method in methods]
    return replace(splits[0], name=name, missing=missing, rows=rows, entries=entries, splits=len(splits))


def _entry(splits: Sequence[Found], method: str, finals: Sequence[TrialRow], standard: Sequence[TrialRow]) -> Entry:
    chosen = [one.chosen[method] for one in splits]
    betas, teachers = {entry.beta for entry in chosen}, {entry.teachers for entry in chosen}
    beta = betas.pop() if len(betas) == 1 else float("nan")
    key = (method, beta, teachers.pop() if len(teachers) == 1 else (), ())
    searched = [
        row for one, entry in zip(splits, chosen, strict=True) for row in one.rows if row["trial"] in entry.searched
    ]
    return entry_of(key, chosen[0].measure, finals, searched, standard, is_chosen=True)


def _finals(splits: Sequence[Found], method: str) -> list[TrialRow]:
    return [_in_split(row, number) for number, one in enumerate(splits) for row in one.chosen[method].finals]


def _in_split(row: TrialRow, number: int) -> TrialRow:
    """The row, its seed and its name told apart from other splits'."""
    return {**row, "seed": (number, row["seed"]), "trial": f"{number}/{row['trial']}"}
