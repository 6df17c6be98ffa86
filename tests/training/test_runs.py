"""A run's directory, where another program has one with the same name, and while the run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aft_ray.commands.check import open_setup
from aft_ray.recipe.config import Recipe, dump
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from aft_ray.training.evaluations import read_evaluations
from aft_ray.training.runs import STUDENT, RunDirectory
from aft_ray.training.train import train
from tests.helpers.training import made_workspace, recipe
from tests.helpers.training import run as run_of

SHORT = {"regularizer.name": "none", "train.steps": 2, "train.evaluate_every": 1, "train.streaming": False}


@pytest.fixture
def given(tmp_path: Path) -> Recipe:
    return made_workspace(tmp_path, SHORT)


@pytest.mark.parametrize(
    "theirs",
    [
        ("checkpoints/step-00001000/model.pt",),
        ("config.yaml", "stop"),
        ("tensorboard/events.out.tfevents.1.theirs",),
        ("student/student.safetensors",),
    ],
)
def test_a_directory_of_another_program_is_left_as_it_is(theirs: tuple[str, ...], given: Recipe) -> None:
    place = Path(given.workspace) / "runs" / "main"
    for name in theirs:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("learning_rate: 1")
    named = sorted({name.partition("/")[0] for name in theirs})
    with pytest.raises(InputError, match=f"runs/main holds {', '.join(named)} and no run of ours.*run=NAME"):
        train(open_setup(given, "train"))
    found = sorted(path for path in place.rglob("*") if path.is_file())
    assert found == sorted(place / name for name in theirs)
    assert {path.read_text() for path in found} == {"learning_rate: 1"}


def test_a_claim_that_was_killed_half_way_is_no_other_program_s(given: Recipe) -> None:
    place = Path(given.workspace) / "runs" / "main"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(dump(given))
    (place / "notes.txt").write_text("mine")
    assert RunDirectory(train(open_setup(given, "train"))).is_finished
    assert (place / "notes.txt").read_text() == "mine"


def test_a_run_that_ends_while_its_history_is_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last line and its student are written between the two reads of whoever follows it."""
    run_of(recipe("none", steps=4, evaluate_every=2), tmp_path)
    run = RunDirectory(Workspace.at(tmp_path))
    student, lines = tmp_path / STUDENT, run.history()
    whole = student.read_bytes()
    student.unlink()

    def slow(*given: Any) -> list[dict[str, Any]]:
        before = read_evaluations(*given)[:-1]
        student.write_bytes(whole)
        return before

    monkeypatch.setattr("aft_ray.training.runs.read_evaluations", slow)
    assert run.history() == lines[:-1]
    with pytest.raises(InputError, match="it has 1 lines, the run made 2 evaluations"):
        run.history()
