"""A search that is over keeps the students that its final runs and its report need."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.recipe.config import Recipe, override
from aft_ray.search.kept import drop_students
from aft_ray.search.space import Setting, Trial
from aft_ray.search.trials import TrialDirectory, TrialRow, setting_key
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from tests.helpers.training import DATA, made_workspace

WEAK, STRONG = Setting("aft", 1.0, ("one",)), Setting("aft", 2.0, ("one",))


def searched(given: Recipe, *trials: Trial) -> list[TrialRow]:
    """Trials on disk, each with its student."""
    place = Workspace.at(given.workspace).search(given.run) / "trials"
    for number, trial in enumerate(trials):
        directory = TrialDirectory(place / trial.name)
        directory.note(trial, number=number, wall_time_s=0.0)
        recipe = override(trial.recipe(given), {"train.steps": 1, "train.global_batch_size": 10})
        fit(recipe, DATA, directory=directory.place, report=lambda metrics, state: None, evaluate_test=False)
        directory.end("finished")
    return [TrialDirectory(place / trial.name).row() for trial in trials]


@pytest.mark.parametrize(
    ("keep", "num_finals", "kept"),
    [("all", 1, 3), ("best", 1, 2), ("best", 0, 1), ("none", 1, 0)],
)
def test_students_are_kept_as_the_recipe_says_and_scores_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: str, num_finals: int, kept: int
) -> None:
    given = override(made_workspace(tmp_path), {"search.keep_students": keep})
    place = Workspace.at(given.workspace).search(given.run)
    finals = [Trial("final", STRONG, 1)] * num_finals
    rows = searched(given, Trial("search", WEAK, 0), Trial("search", STRONG, 0), *finals)
    best = next(setting_key(row) for row in rows if row["regularizer.beta"] == 2.0)
    drop_students(given, place, rows, {best})
    left = [path.parts[-3] for path in Path(place.path).rglob("student/student.json")]
    assert len(left) == kept and all("beta2" in name for name in left if keep == "best")
    told = capsys.readouterr().err
    assert ("deleted the students of" in told) == (kept < len(rows))
    assert [TrialDirectory(place / "trials" / row["trial"]).row() for row in rows] == rows
    drop_students(given, place, rows, {best})
    assert capsys.readouterr().err == "", "there is nothing left to delete"
