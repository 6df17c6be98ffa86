"""Re-reads everything that a search or a ranking wrote: one line for each file that is damaged or foreign."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.errors import faults_of
from aft_ray.recipe.json_files import damaged
from aft_ray.search.search import read_winner
from aft_ray.search.teacher_heads import read_heads
from aft_ray.search.trials import TrialDirectory, TrialRow, read_table
from aft_ray.store.files import Directory
from aft_ray.training.verification import run_faults

RANK_AGAIN = "Delete it and run 'aft-ray rank' again."
SCORES = ("step", "val_accuracy", "val_loss")


@with_config(ConfigDict(extra="allow"))
class Ranked(TypedDict):
    """rank.json, as far as others read it. sha256: of the files beside it."""

    rows: list[dict[str, Any]]
    teachers: list[str]
    sha256: NotRequired[dict[str, str]]


def trials_of(search: Directory) -> list[TrialDirectory]:
    trials = [search / "trials" / name for name in (search / "trials").folders()]
    return [TrialDirectory(place) for place in trials if place.has("trial.json")]


def trial_faults(trial: TrialDirectory) -> list[str]:
    return faults_of(trial.facts, trial.outcome) or run_faults(trial, goes_on_as_started=False)


def search_faults(search: Directory) -> list[str]:
    """Faults of the search's own files; `trial_faults` has the faults of its trials."""
    winner = [partial(read_winner, search)] if search.has("best.yaml") else []
    return faults_of(partial(_check_table, search), partial(read_heads, search), *winner)


def _check_table(search: Directory) -> None:
    for row in read_table(search):
        trial = TrialDirectory(search / "trials" / row["trial"])
        if trial.place.has("trial.json") and not faults_of(trial.history, trial.outcome) and not _is_of(row, trial):
            fault = f"its row {row['trial']} is not as the trial's own files have it"
            raise damaged(f"{search}/trials.parquet", [fault], "Run 'aft-ray search' again.")


def _is_of(row: TrialRow, trial: TrialDirectory) -> bool:
    """Whether an evaluation of the trial has the row's scores. The table of a running search is behind."""
    told = [row.get(key) for key in SCORES]
    is_known = told == [None] * len(SCORES) or told in [[line.get(key) for key in SCORES] for line in trial.history()]
    outcome = trial.outcome()
    return is_known and row["status"] in ("running", outcome["status"] if outcome else "running")


def ranking_faults(workspace: Directory) -> list[str]:
    return faults_of(partial(_check_ranking, workspace)) if workspace.has("rank.json") else []


def _check_ranking(workspace: Directory) -> None:
    facts = workspace.read_json("rank.json", Ranked, RANK_AGAIN)
    for name, checksum in facts.get("sha256", {}).items():
        content = workspace.read(name) if workspace.has(name) else b""
        if hashlib.sha256(content).hexdigest() != checksum:
            raise damaged(f"{workspace}/{name}", ["its checksum is not the one in rank.json"], RANK_AGAIN)
