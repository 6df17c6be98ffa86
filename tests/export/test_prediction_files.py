"""Predictions replace only predictions, and only when they are whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.export.prediction_files import output_directory, staged
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from tests.helpers.dying import Killed, dying


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "work" / "samples" / "train").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    return Workspace.at(tmp_path / "work")


def predicted(workspace: Workspace, place: Path, *ids: str) -> None:
    """Predictions for `ids`, a part for each."""
    with staged(workspace, Workspace.at(place)) as new:
        hashes = {number: new.write(number, pa.table({"sample_id": [name]})) for number, name in enumerate(ids)}
        new.publish(hashes, {"num_samples": len(ids)})


def valid(place: Path) -> list[str]:
    """The ids that predictions.json vouches for."""
    files = json.loads((place / "predictions.json").read_text())["files"]
    return [name for file in files for name in pq.read_table(place / file)["sample_id"].to_pylist()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_new_predictions_replace_old_ones_and_leave_other_files(workspace: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    predicted(workspace, place, "a", "b", "c")
    assert output_directory(workspace, "main", str(place), str(tmp_path / "photos")).path == str(place)
    predicted(workspace, place, "d", "e")
    assert valid(place) == ["d", "e"]
    assert pq.read_table(sorted(place.glob("*.parquet")))["sample_id"].to_pylist() == ["d", "e"]
    assert (place / "notes.txt").read_text() == "mine" and len(list(place.iterdir())) == 4


@pytest.mark.parametrize("changes", range(8))
def test_a_kill_leaves_the_old_predictions_or_the_new_ones(changes: int, workspace: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "out"
    predicted(workspace, place, "old", "older")
    with pytest.raises(Killed), staged(workspace, dying(place, changes)) as new:
        hashes = {number: new.write(number, pa.table({"sample_id": [f"new {number}"]})) for number in range(2)}
        new.publish(hashes, {})
        assert changes == 7  # two files written, two moved, the summary, two deleted
        raise Killed
    assert valid(place) in (["old", "older"], ["new 0", "new 1"])
    assert (valid(place) == ["old", "older"]) == (changes < 5)
    for hidden in place.glob(".predicting-*"):
        for path in (hidden, *hidden.iterdir()):
            os.utime(path, (time.time() - 7200,) * 2)
    predicted(workspace, place, "last")
    assert valid(place) == ["last"] and len(list(place.iterdir())) == 2


def test_a_failure_leaves_nothing_new(workspace: Workspace, tmp_path: Path) -> None:
    predicted(workspace, tmp_path / "out", "old")
    before = content(tmp_path / "out")
    with pytest.raises(InputError), staged(workspace, Workspace.at(tmp_path / "out")) as new:
        new.write(0, pa.table({"sample_id": ["new"]}))
        raise InputError("a fault of the data")
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("output", "source", "fault"),
    [
        ("tables", "tables/part-00007.parquet", "must lie apart"),
        (
            "tables",
            "photos",
            "tables holds part-00007.parquet, part-00008.parquet, part-00009.parquet and 1 more, which",
        ),
        ("summary", "photos", "summary holds predictions.json, which this version of 'aft-ray predict' did not write."),
        ("photos/out", "photos", "must lie apart"),
        ("photos", "photos/1.png", "must lie apart"),
        ("photos", "photos", "must lie apart"),
        ("work/samples/train", "photos", "is a part of the workspace that is not for predictions"),
        ("work/features/new", "photos", "is a part of the workspace that is not for predictions"),
        ("work", "photos", "is a part of the workspace that is not for predictions"),
        ("link", "photos", "is a part of the workspace that is not for predictions"),
        ("mails.txt", "photos", "mails.txt is a file"),
    ],
)
def test_what_is_not_ours_is_refused_and_not_touched(
    output: str, source: str, fault: str, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "tables").mkdir()
    for number in range(7, 11):
        pq.write_table(pa.table({"sample_id": [f"x{number}"]}), tmp_path / "tables" / f"part-{number:05d}.parquet")
    (tmp_path / "summary").mkdir()
    (tmp_path / "summary" / "predictions.json").write_text('["of another program"]')
    (tmp_path / "photos" / "1.png").write_bytes(b"a picture")
    (tmp_path / "mails.txt").write_text("one")
    (tmp_path / "link").symlink_to(tmp_path / "work" / "samples")
    (tmp_path / "work" / "samples" / "train" / "part-00000.parquet").write_bytes(b"a shard")
    before = content(tmp_path)
    with pytest.raises(InputError) as raised:
        output_directory(workspace, "main", str(tmp_path / output), str(tmp_path / source))
    assert fault in str(raised.value)
    assert all("--output" in line and line.endswith("Nothing was changed.") for line in raised.value.faults)
    assert content(tmp_path) == before


def test_a_pipe_with_the_name_of_a_part_is_foreign_and_not_waited_for(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    os.mkfifo(tmp_path / "tables" / "part-00000.parquet")
    with pytest.raises(InputError, match="part-00000.parquet"):
        output_directory(workspace, "main", str(tmp_path / "tables"), str(tmp_path / "photos"))


def test_the_workspace_has_a_place_for_predictions(workspace: Workspace, tmp_path: Path) -> None:
    for output in (None, str(tmp_path / "work" / "predictions" / "main")):
        found = output_directory(workspace, "main", output, str(tmp_path / "photos"))
        assert found.path == str(tmp_path / "work" / "predictions" / "main")
    assert output_directory(workspace, "main", str(tmp_path / "elsewhere"), str(tmp_path / "photos")).names() == []


def test_unfinished_predictions_are_swept_without_touching_files_of_others(
    workspace: Workspace, tmp_path: Path
) -> None:
    predicted(workspace, tmp_path / "out", "old")
    for name, own in ((".predicting-0123abcd", True), (".predicting-0123abce", False)):
        with staged(workspace, Workspace.at(tmp_path / "out")) as new:
            new.write(0, pa.table({"sample_id": ["x"]}))
            shutil.copytree(new.staging.path, tmp_path / "out" / name)
        (tmp_path / "out" / name / f".1.parquet.{'0' * 8}.tmp").write_bytes(b"half")
        if not own:
            (tmp_path / "out" / name / "notes.txt").write_text("mine")
    for path in (tmp_path / "out").rglob("*"):
        os.utime(path, (0, 0))
    predicted(workspace, tmp_path / "out", "new")
    assert not (tmp_path / "out" / ".predicting-0123abcd").exists()
    assert (tmp_path / "out" / ".predicting-0123abce" / "notes.txt").read_text() == "mine"
