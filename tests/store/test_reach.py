"""A workspace that cannot be used is told in a line, with status 2, before anything is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aft_ray.cli import main
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import WITHIN_S
from aft_ray.store.reach import reached
from tests.helpers import ROOT

CLOSED = "endpoint_override=127.0.0.1:1&scheme=http"
"""A port at which nothing listens."""
VERBS = ("prepare", "extract", "plan", "train", "search", "pipeline", "rank", "evaluate", "export", "report", "verify")


def made_recipe(place: Path, workspace: str) -> Path:
    path = place / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({"workspace": workspace, "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:cnn"}})
    )
    return path


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("file", "is a file. Name a directory, or move that away."),
        ("file/below", "is a file."),
        ("loop", "cannot be opened: Symlink loop"),
        ("nowhere://bucket/x", "nowhere://bucket/x cannot be opened: "),
    ],
)
def test_a_place_that_can_be_no_workspace(
    verb: str, name: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    place = name if "://" in name else str(tmp_path / name)
    assert main([verb, str(made_recipe(tmp_path, place))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("aft-ray: ") and fault in line


@pytest.mark.parametrize("url", ["s3://", "gs:///path", "s3://?region=x"])
def test_a_url_without_a_bucket(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", url]) == 2
    assert "names no bucket. Write s3://BUCKET/PATH or gs://BUCKET/PATH." in capsys.readouterr().err


def test_a_path_with_nul_is_no_path() -> None:
    with pytest.raises(InputError, match="cannot be opened: .*embedded null"):
        reached("/tmp/a\0b", to_write=True)


@pytest.mark.parametrize(("mode", "to_write", "word"), [(0o500, True, "written"), (0o300, False, "read")])
def test_a_directory_without_permission(
    mode: int, to_write: bool, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may do everything: its answer is that of the directory's mode here."""

    def allowed(path: Path, needed: int) -> bool:
        return needed & ~(os.stat(path).st_mode >> 6) == 0

    monkeypatch.setattr(os, "access", allowed)
    (tmp_path / "closed").mkdir(mode=mode)
    for place in (tmp_path / "closed", tmp_path / "closed" / "below" / "work"):
        if place.parent == tmp_path or to_write:
            with pytest.raises(InputError, match=rf"closed may not be {word} by this user \(Permission denied\)."):
                reached(str(place), to_write=to_write)
    assert reached(str(tmp_path / "new"), to_write=True).path == str(tmp_path / "new")


@pytest.mark.processes
@pytest.mark.parametrize("url", [f"s3://bucket/x?{CLOSED}&region=us-east-1", f"gs://anonymous@bucket/x?{CLOSED}"])
def test_an_object_store_out_of_reach_is_told_in_seconds(url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-m", "aft_ray.cli", "train", str(made_recipe(tmp_path, url))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "cannot be reached: " in line or f"does not answer within {WITHIN_S:g} s." in line
