from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from aft_ray.commands.check import check
from aft_ray.recipe.errors import InputError, WorkerError
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.training import trackers
from aft_ray.training.provenance import run_inputs
from aft_ray.training.runs import RunDirectory
from aft_ray.training.trackers import TensorBoard, WandbTracker, open_trackers
from tests.helpers.training import Killed, killed_after, recipe, run

pytestmark = pytest.mark.slow


def events(folder: Path) -> list[Event]:
    """Every event of a run's TensorBoard files, oldest file first."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return found


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each name."""
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for event in events(folder):
        for value in event.summary.value:
            points[value.tag].append((event.step, value.simple_value))
    return points


def test_tensorboard_does_not_import_the_library_of_a_store_that_is_reached_without_it(tmp_path: Path) -> None:
    code = f"""
import sys
from aft_ray.store.workspace import Workspace
from aft_ray.training.trackers import TensorBoard

board = TensorBoard(Workspace.at({str(tmp_path)!r}))
board.log(1, {{"loss": 0.5}})
board.close()
sys.exit("boto3" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert shown(tmp_path / "tensorboard") == {"loss": [(1, 0.5)]}


def test_tensorboard_has_every_evaluation_once_also_after_a_crash(tmp_path: Path) -> None:
    given = recipe(steps=8, evaluate_every=2)
    whole = run(given, tmp_path / "whole")
    kept = killed_after(4, given, tmp_path / "cut")
    with pytest.raises(AssertionError, match="nothing was reported at step 99"):  # goes on to the end, unsaved
        killed_after(99, given, tmp_path / "cut")
    run(given, tmp_path / "cut", resume=kept)
    points = shown(tmp_path / "cut" / "tensorboard")
    assert [step for step, _ in points["loss"]] == [2, 4, 6, 8]
    assert [value for _, value in points["loss"]] == pytest.approx([line["loss"] for line in whole])
    assert points["test_accuracy"] == [(8, pytest.approx(whole[-1]["test_accuracy"]))]
    assert "gate_mean/one" in points and "step" not in points


def test_to_an_object_store_the_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Directory, "is_local", property(lambda self: False))
    place = Workspace.at(tmp_path)
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with open_trackers(recipe(), place, []) as opened:
        opened.log({"step": 3, "loss": 0.5, "val_accuracy": None})
        assert shown(tmp_path / "tensorboard")["loss"] == [(3, 0.5)]
        (folder,) = (tmp_path / "temporary").iterdir()
        assert folder.name.startswith("aft-scratch-"), "the next process deletes what a killed one leaves there"
    assert set(shown(tmp_path / "tensorboard")) == {"loss"} and not [*folder.iterdir()]


def test_every_tracker_is_closed_also_where_one_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[str, bool]] = []

    class Broken:
        def __init__(self, *_: object) -> None: ...

        def log(self, step: int, metrics: object) -> None: ...

        def close(self, *, failed: bool = False) -> None:
            ended.append((type(self).__name__, failed))
            raise ConnectionError("no server")

    class Second(Broken):
        pass

    class Board(TensorBoard):
        def close(self, *, failed: bool = False) -> None:
            super().close(failed=failed)
            ended.append((type(self).__name__, failed))

    monkeypatch.setattr(trackers, "TensorBoard", Board)
    monkeypatch.setattr(trackers, "MlflowTracker", Broken)
    monkeypatch.setattr(trackers, "WandbTracker", Second)
    given = recipe(trackers=["mlflow", "wandb"])
    with pytest.raises(ConnectionError), open_trackers(given, Workspace.at(tmp_path), []):
        raise Killed
    assert ended == [("Second", True), ("Broken", True), ("Board", True)]


def test_mlflow_goes_on_with_its_run_and_repeats_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    given = recipe(trackers=["mlflow"])
    lines = [{"step": step, "loss": step / 8, "val_accuracy": None} for step in (2, 4, 6)]
    with pytest.raises(Killed), open_trackers(given, Workspace.at(tmp_path), []):
        raise Killed  # before the first evaluation
    with pytest.raises(Killed), open_trackers(given, Workspace.at(tmp_path), []) as opened:
        opened.log(lines[0])
        opened.log(lines[1])
        raise Killed
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("aft_ray")
    (cut,) = client.search_runs([experiment.experiment_id])
    assert cut.info.status == "FAILED" and cut.info.end_time, "a run that fails is closed too"
    with open_trackers(given, Workspace.at(tmp_path), lines[:1]) as opened:
        assert client.get_run(cut.info.run_id).info.status == "RUNNING"
        opened.log(lines[1])
        opened.log(lines[2])
    (found,) = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(found.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(2, 0.25), (4, 0.5), (6, 0.75)]
    assert found.data.params["regularizer.beta"] == "2.0"
    assert (found.info.run_name, found.info.status) == ("main", "FINISHED")


def test_wandb_resumes_the_run_of_the_same_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its server: every start leaves a directory named after the run's id, with what was logged."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    files: list[Path] = []
    for number, place in enumerate(("a", "a", "b")):
        own = tmp_path / str(number)
        own.mkdir()
        monkeypatch.setenv("WANDB_DIR", str(own))
        with open_trackers(recipe(trackers=["wandb"]), Workspace.at(tmp_path / place), []) as opened:
            assert isinstance(opened.all[-1], WandbTracker) and opened.all[-1].wandb_run.settings.resume == "allow"
            opened.log({"step": 2, "loss": 1.03125 + number})
        files += own.glob("wandb/offline-run-*/*.wandb")
        wandb.teardown()
    assert [f"{1.03125 + number}".encode() in file.read_bytes() for number, file in enumerate(files)] == [True] * 3
    assert files[0].name == files[1].name != files[2].name


def test_a_server_of_mlflow_that_does_not_answer_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(
            WorkerError, match="train.trackers names mlflow: .* See that the server of MLFLOW_TRACKING_URI runs"
        ),
        open_trackers(recipe("none", trackers=["mlflow"]), Workspace.at(tmp_path / "run"), []),
    ):
        pass


@pytest.fixture
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without W&B's settings, keys and logins."""
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, place in (("HOME", "home"), ("NETRC", "netrc"), ("WANDB_CONFIG_DIR", "config"), ("WANDB_DIR", "runs")):
        monkeypatch.setenv(name, str(tmp_path / place))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("no_login")
def test_who_is_not_logged_in_to_wandb_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    given = recipe("none", trackers=["wandb"])
    (told,) = trackers.faults(given)
    assert "train.trackers names wandb: nobody is logged in" in told and "WANDB_MODE=offline" in told
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not trackers.faults(given), "the training runs elsewhere, where somebody may be logged in"
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    assert not trackers.faults(given)


@pytest.mark.usefixtures("no_login")
def test_without_a_server_nobody_need_be_logged_in_to_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not trackers.faults(recipe("none", trackers=["wandb"]))


@pytest.mark.usefixtures("no_login")
def test_a_worker_that_wandb_does_not_let_in_ends_the_run_for_all(tmp_path: Path) -> None:
    with (
        pytest.raises(
            WorkerError, match="train.trackers names wandb: No API key configured.* Run 'wandb login' or set"
        ),
        open_trackers(recipe("none", trackers=["wandb"]), Workspace.at(tmp_path / "run"), []),
    ):
        pass


def test_a_run_that_is_trained_anew_in_its_directory_is_another_run_of_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    ids = []
    monkeypatch.setattr(wandb, "init", lambda **given: ids.append(given["id"]))
    place, given = Workspace.at(tmp_path / "run"), recipe("none")
    for _ in range(2):
        RunDirectory(place).claim(given, run_inputs(given, {}))
        WandbTracker(given, place)
        WandbTracker(given, place)
        place.delete()
    assert ids[0] == ids[1] != ids[2] == ids[3]


def test_a_tracker_that_is_not_installed_is_a_fault_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match="train.trackers names wandb, which is not installed. Run pip install 'aft-ray"
    ):
        check(recipe("none", trackers=["wandb"]).model_copy(update={"teachers": ()}), "pipeline")
