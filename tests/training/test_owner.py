"""A valid file of another run or search is refused by whoever reads it; a run that is renamed or copied stays whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aft_ray.cli import main
from aft_ray.export.run_files import read_evaluation
from aft_ray.recipe.config import load
from aft_ray.recipe.errors import InputError
from aft_ray.search.search import read_winner
from aft_ray.search.trials import TrialDirectory, read_table
from aft_ray.store.workspace import Workspace
from aft_ray.training.evaluations import write_evaluations
from aft_ray.training.runs import RunDirectory
from tests.helpers.whole_workspace import whole_workspace


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    whole_workspace(place)
    return place


@pytest.fixture
def work(once: Path, tmp_path: Path) -> Iterator[Workspace]:
    yield Workspace.at(shutil.copytree(once / "work", tmp_path / "work"))


def trial(work: Workspace, beta: int) -> TrialDirectory:
    return TrialDirectory(work.search("main") / "trials" / f"search-aft-beta{beta}-one-seed0")


READERS: dict[str, tuple[str, str, Callable[[Workspace], object]]] = {
    "a run's evaluations": (
        "runs/main/metrics.jsonl",
        "runs/second/metrics.jsonl",
        lambda work: RunDirectory(work.run("main")).history(),
    ),
    "a run's recipe": (
        "runs/main/config.yaml",
        "runs/second/config.yaml",
        lambda work: RunDirectory(work.run("main")).config(),
    ),
    "a run's scores": (
        "runs/main/evaluation-test.json",
        "runs/second/evaluation-test.json",
        lambda work: read_evaluation(work.run("main"), "test"),
    ),
    "another split's scores": (
        "runs/main/evaluation-test.json",
        "runs/main/evaluation-validation.json",
        lambda work: read_evaluation(work.run("main"), "test"),
    ),
    **{
        f"a trial's {name}": (
            f"searches/main/trials/search-aft-beta1-one-seed0/{name}",
            f"searches/main/trials/search-aft-beta3-one-seed0/{name}",
            lambda work: trial(work, 1).row(),
        )
        for name in ("metrics.jsonl", "trial.json", "outcome.json")
    },
    "a search's table": (
        "searches/main/trials.parquet",
        "searches/second/trials.parquet",
        lambda work: read_table(work.search("main")),
    ),
    "a search's winner": (
        "searches/main/best.yaml",
        "searches/second/best.yaml",
        lambda work: read_winner(work.search("main")),
    ),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_file_of_another_run_or_search_is_refused(kind: str, work: Workspace) -> None:
    name, other, read = READERS[kind]
    read(work)
    Path(work.path, name).write_bytes(Path(work.path, other).read_bytes())
    with pytest.raises(InputError, match=f"{name}.* is damaged: (it is of (another run|the split)|its .* differ)"):
        read(work)


def test_a_student_of_another_run_is_refused(work: Workspace, once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = Path(work.run("main").path, "student")
    shutil.rmtree(student)
    shutil.copytree(Path(work.run("second").path, "student"), student)
    for verb in ("evaluate", "export", "report"):
        assert main([verb, str(once / "recipe.yaml"), f"workspace={work}"]) == 2
        assert "student.json is damaged: it is of another run or search." in capsys.readouterr().err


def test_a_run_that_is_renamed_or_copied_is_read(work: Workspace) -> None:
    history = RunDirectory(work.run("main")).history()
    shutil.copytree(work.run("main").path, work.run("copy").path)
    Path(work.run("main").path).rename(work.run("renamed").path)
    for name in ("copy", "renamed"):
        assert RunDirectory(work.run(name)).history() == history


def test_a_run_of_before_has_no_ids_and_gets_one_when_it_goes_on(work: Workspace) -> None:
    run = RunDirectory(work.run("main"))
    history, inputs = run.history(), run.inputs()
    assert inputs is not None
    run.place.write("inputs.json", json.dumps(inputs).encode())
    write_evaluations(run.place, history, owner=None)
    assert run.history() == history and run.run_id == ""
    run.claim(load(Path(run.place.path, "config.yaml")), inputs)
    assert run.history() == history and run.run_id

    RunDirectory(work.run("second")).place.write("inputs.json", json.dumps(inputs).encode())
    with pytest.raises(InputError, match="metrics.jsonl, line 1, is damaged: it is of another run or search."):
        RunDirectory(work.run("second")).history()
