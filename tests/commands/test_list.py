"""`aft-ray list runs|searches`, `aft-ray compare`, and the first rows of predictions, as the terminal shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray import cli
from aft_ray.commands.predict import show_predictions
from aft_ray.recipe.config import Recipe, override
from aft_ray.report import listing
from aft_ray.report.listing import RunFacts
from aft_ray.search.estimate import estimate_search
from aft_ray.search.search import plan_search
from aft_ray.search.space import Trial
from aft_ray.search.trials import TrialDirectory, write_table
from aft_ray.store.workspace import Workspace
from aft_ray.training.best import LOSS
from aft_ray.training.inputs.stores import open_setup
from aft_ray.training.provenance import origin, run_inputs
from aft_ray.training.train import train
from tests.helpers.training import made_workspace


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    assert cli.main(arguments) == status
    out = capsys.readouterr()
    return out.out if status == 0 else out.err


def trained(place: Path) -> Recipe:
    """A workspace with two finished runs."""
    given = made_workspace(place, {"train.steps": 4, "train.evaluate_every": 2})
    for name, changes in (("plain", {"regularizer.name": "none"}), ("with-aft", {"regularizer.beta": 3.0})):
        own = override(given, {"run": name, **changes})
        train(open_setup(own))
    return given


def test_runs_are_listed_with_scores_and_dates_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    listed = said(capsys, "list", "runs", str(tmp_path))
    lines = {name: next(line for line in listed.splitlines() if name in line) for name in ("plain", "with-aft")}
    assert "standard transfer" in lines["plain"] and "AFT, beta 3" in lines["with-aft"]
    assert all(line.count(":") == 1 and line.count(".") >= 2 for line in lines.values())  # a time, and two scores
    told = said(capsys, "compare", f"{tmp_path}/runs/plain", f"{tmp_path}/runs/with-aft")
    assert "regularizer.name" in told and "regularizer.beta" in told and "test_accuracy" in told
    assert "train.steps" not in told  # alike in both
    assert "Their recipes are the same." in said(capsys, "compare", *[f"{tmp_path}/runs/plain"] * 2)


def test_a_run_that_is_under_way_or_damaged_is_listed_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path)
    (tmp_path / "runs" / "plain" / "student" / "student.json").unlink()
    (tmp_path / "runs" / "with-aft" / "metrics.jsonl").write_text("no json\n")
    listed = said(capsys, "list", "runs", str(tmp_path))
    assert "step 4/4" in listed and "damaged" in listed and "metrics.jsonl, line 1" in listed


def test_a_damaged_run_that_is_the_newest_does_not_name_the_task_s_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    regression: dict[str, Any] = {
        "step": 4,
        "steps": 4,
        "is_finished": True,
        "measure": LOSS,
        "validation": 0.25,
        "test": 0.5,
    }
    found = [
        RunFacts("broken", None, fault="metrics.jsonl is damaged"),
        RunFacts("fine", None, "aft", 1.0, **regression),
    ]
    monkeypatch.setattr(listing, "list_runs", lambda workspace: found)
    listed = said(capsys, "list", "runs", str(tmp_path))
    assert "metrics.jsonl is damaged" in listed and "0.25" in listed and "%" not in listed


def test_searches_are_listed_and_a_dry_run_says_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"search.compare": ["none", "aft"], "search.beta": [1, 2], "train.steps": 4, "train.evaluate_every": 2}
    given = made_workspace(tmp_path, changes)
    setup, search = open_setup(given, given.teacher_names()), Workspace.at(tmp_path).search("main")
    first: Trial = plan_search(setup)[0]
    trial = TrialDirectory(search / "trials" / first.name)
    own = first.recipe(given)
    trial.claim_trial(first, 0, own, run_inputs(own, origin(setup.stores)))
    trial.end("finished")
    plan = estimate_search(setup)
    assert plan.num_over == 1 and len(plan.trials) == 7
    rows = [{"trial": first.name, "stage": "search", "regularizer.name": "none", "status": "finished"}]
    write_table(search, [row | {"val_accuracy": 0.625, "teachers": []} for row in rows])
    listed = said(capsys, "list", "searches", str(tmp_path))
    assert "main" in listed and "1 finished" in listed and "62.50" in listed


def test_folders_of_others_are_neither_listed_nor_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_workspace(tmp_path)
    for name in ("runs", "searches", "predictions"):
        (tmp_path / name / "notes").mkdir(parents=True)
        (tmp_path / name / "notes" / "readme.txt").write_text("of mine")
    assert "has no runs" in said(capsys, "list", "runs", str(tmp_path))
    assert "has no searches" in said(capsys, "list", "searches", str(tmp_path))
    told = said(capsys, "verify", str(tmp_path))
    assert "read: 0 faults" in told and not any(
        name in told.splitlines()[0] for name in ("runs", "searches", "predictions")
    )


def test_wrong_places_are_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs a recipe or a workspace" in said(capsys, "list", "runs", status=2)
    assert "takes no further argument" in said(capsys, "list", "teachers", "x", status=2)
    told = said(capsys, "compare", str(tmp_path / "a"), str(tmp_path / "b"), status=2)
    assert len(told.splitlines()) == 2 and "holds no run" in told
    assert "has no runs" in said(capsys, "list", "runs", str(tmp_path))
    assert "has no searches" in said(capsys, "list", "searches", str(tmp_path))


def test_the_first_predictions_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"sample_id": f"{n}.png", "predicted": "cat", "probability": 0.75, "error": None} for n in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "part-0.parquet")
    summary = {"counts": {"cat": 9}, "num_errors": 0, "num_samples": 9, "output": str(tmp_path)}
    show_predictions("pictures", summary | {"files": ["part-0.parquet"]})
    told = capsys.readouterr().out
    assert "numbers" not in told
    show_predictions("pictures", {**summary, "counts": {}, "num_errors": 2, "files": []})
    assert "numbers │ 7" in " ".join(capsys.readouterr().out.split())
    assert "4.png" in told and "5.png" not in told and "0.7500" in told and "error" not in told
