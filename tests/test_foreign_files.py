"""Files of the user's own inside a workspace stay where they are: only names and contents that aft_ray wrote are deleted."""

from __future__ import annotations

from pathlib import Path

from aft_ray.cli import main
from aft_ray.extraction.extract import delete_features
from aft_ray.search.rounds import delete_state_of_tune
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import COMMIT
from aft_ray.training.runs import RunDirectory
from aft_ray.training.trackers import TensorBoard
from tests.helpers.training import made_workspace


def filled(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")


def test_new_features_replace_ours_alone(tmp_path: Path) -> None:
    recipe = made_workspace(tmp_path)
    mine = [tmp_path / "features" / "one" / name for name in ("notes.txt", "train/part-00099.parquet", "train/mine/x")]
    filled(*mine)
    delete_features(Workspace.at(recipe.workspace), ["one"])
    assert sorted(path for path in (tmp_path / "features" / "one").rglob("*") if path.is_file()) == sorted(mine)
    assert Workspace.at(tmp_path).features("two", "train").faults() == []


def test_a_search_deletes_tune_s_state_alone(tmp_path: Path) -> None:
    filled(tmp_path / "tune-notes" / "x", tmp_path / "tune-search-20261128-010203" / "x")
    delete_state_of_tune(Workspace.at(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["tune-notes"]


def test_a_run_deletes_its_own_checkpoints_alone(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    old, last = checkpoints / "step-00000002-abcd", checkpoints / "step-00000004"
    filled(checkpoints / "step-by-step" / "x", old / COMMIT, last / COMMIT)
    kept = RunDirectory(Workspace.at(tmp_path)).keep_last_checkpoint()
    assert kept is not None and Path(kept.path) == last
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000004", "step-by-step"]


def test_tensorboard_is_begun_anew_without_the_user_s_files(tmp_path: Path) -> None:
    mine, old = tmp_path / "tensorboard" / "notes" / "x", tmp_path / "tensorboard" / "events.out.tfevents.1.host"
    filled(mine, old)
    TensorBoard(Workspace.at(tmp_path)).close()
    assert mine.exists() and not old.exists()


def test_files_and_folders_beside_ours_are_not_read(tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    made_workspace(workspace)
    filled(
        *(
            workspace / folder / name
            for folder in ("features", "features/one", "runs")
            for name in (".DS_Store", "x y/z")
        )
    )
    assert main(["verify", str(workspace)]) == 0
