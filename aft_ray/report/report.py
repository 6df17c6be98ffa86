"""report: everything a workspace holds as one page that needs nothing else, and its tables as CSV.

Reads the files of `train` and `search`, finished or not. The same workspace gives the same page, byte for byte.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from aft_ray.recipe.config import Recipe, dump
from aft_ray.recipe.errors import InputError
from aft_ray.report.closeness import closeness_of
from aft_ray.report.page import render_page
from aft_ray.report.reading import findings, read_trainings, read_trials
from aft_ray.report.results import Entry, Group, Training, TrialRow
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.training.best import Measure, measure_of

RECIPE = "recipe.yaml"


def report(recipe: Recipe) -> str:
    """Writes `report/index.html`, its tables as CSV and the recipe; returns the page's path or URL.

    Raises InputError if the workspace holds neither a run nor the recipe's search, or another program's page lies there.
    """
    place = Workspace.at(recipe.workspace)
    _check_is_ours(place / "report")
    (place / "searches").infos()  # a file in its place would be taken for no search
    trials = read_trials(place.search(recipe.run))
    runs = read_trainings(place / "runs", (place / "runs").folders())
    if not trials and not runs:
        raise InputError(_nothing_there(place, recipe.run))
    found = findings(recipe)
    measure = measure_of([*trials, *(line for run in runs for line in run.history)])
    near = closeness_of(_followers(place.search(recipe.run) / "trials", found.entries, runs))
    tables = {
        "leaderboard": [entry_row(entry) for entry in found.entries],
        "teacher_heads": [vars(head) for head in found.heads],
        "trials": trials,
        "runs": [_run_row(run, measure) for run in runs],
        "closeness": [closeness.row() for closeness in near],
    }
    files = {f"{name}.csv": as_csv(table) for name, table in tables.items() if table}
    files[RECIPE] = dump(recipe)
    page = render_page(recipe, trials, found, runs, near, measure, list(files))
    for name, content in files.items():
        (place / "report").write(name, content.encode())
    (place / "report").write("index.html", page.encode())
    (place / "report").delete_left_overs()
    return f"{place}/report/index.html" if place.is_local else f"{recipe.workspace.rstrip('/')}/report/index.html"


def _followers(trials: Directory, entries: Sequence[Entry], runs: Sequence[Training]) -> list[Group]:
    """Trainings that may say how near students came: of each method the final runs, or where these were trained on validation
    too, the search's trials; without a search the single runs."""
    groups = []
    for entry in entries:
        candidates = (read_trainings(trials, names) for names in (entry.trials, entry.searched))
        trainings = next((found for found in candidates if any(training.closeness for training in found)), [])
        if trainings:
            groups.append(Group(entry.title, trainings))
    return groups or [Group(run.name, [run]) for run in runs]


def _check_is_ours(report: Directory) -> None:
    """Every version has written the recipe before the page. A workspace may be a project's folder, with a report of its own."""
    if report.has("index.html") and not report.has(RECIPE):
        raise InputError(
            f"{report}/index.html was not written by 'aft-ray report', which would replace it. Move it away, or give the recipe"
            " another workspace."
        )


def _nothing_there(place: Workspace, run: str) -> str:
    searches = [name for name in (place / "searches").folders() if place.search(name).has("trials.parquet")]
    hint = f" Searches there: {', '.join(searches)}; choose one with run=NAME." if searches else ""
    return f"{place} holds no run and no search '{run}'. Run 'aft-ray train' or 'aft-ray search' first.{hint}"


def entry_row(entry: Entry) -> TrialRow:
    """A line of leaderboard.csv. The measure's name is part of its columns' names."""
    name = entry.measure.name
    return {
        "method": entry.method,
        "beta": entry.beta,
        "teachers": entry.teachers,
        "others": [f"{key}={value}" for key, value in entry.others],
        "num_seeds": entry.num_seeds,
        f"val_{name}": entry.validation,
        f"test_{name}": entry.test,
        f"test_{name}_se": entry.test_se,
        "relative_error": entry.relative_error,
        "relative_error_se": entry.relative_error_se,
        "gain": entry.gain,
        "p_value": entry.p_value,
        "trials": entry.trials,
    }


def _run_row(run: Training, measure: Measure) -> TrialRow:
    """A line of runs.csv."""
    return {
        "run": run.name,
        "method": run.method,
        "beta": run.recipe["regularizer"]["beta"],
        "teachers": [teacher["name"] for teacher in run.recipe["teachers"]],
        "seed": run.recipe["train"]["seed"],
        "step": run.best["step"],
        f"val_{measure.name}": run.validation(measure),
        f"test_{measure.name}": run.test(measure),
    }


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A column for every key of the rows. Numbers in full precision, lists joined by '+', unknown values empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_cell(row.get(column)) for column in columns)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return "+".join(value)
    return "" if value is None or value != value else value
