"""`clean` deletes what a failed `prepare` left in the directory of the listing, and nothing of others."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from aft_ray.cli import main
from aft_ray.cluster.lease import lease
from aft_ray.datasets.buckets.files import FOLDER, write_bytes, write_table
from aft_ray.store.workspace import Workspace

NAME = f"rows-{16 * '0'}"
UNFINISHED = f".{NAME}.image.{8 * '0'}.tmp"
OTHERS = [f".sorted-00000.arrow.{8 * '1'}.tmp", "sorted-00000.arrow"]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """As a command that failed while it listed tars leaves it, beside files of somebody else with such names."""
    workspace = Workspace.at(tmp_path / "work")
    write_table(workspace / FOLDER, f"{NAME}.arrow", pa.table({"row": [1]}))
    write_bytes(workspace / FOLDER, f"{NAME}.facts", b"facts")
    write_bytes(workspace / FOLDER, UNFINISHED, b"part of a copy")
    for name in OTHERS:
        (workspace / FOLDER).write(name, b"mine")
    return workspace


def names(workspace: Workspace) -> list[str]:
    return (workspace / FOLDER).names()


def test_own_files_are_listed_then_deleted_and_the_others_stay(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(workspace)
    assert main(["clean", str(workspace), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "Would be deleted" in shown and f"{NAME}.arrow" in shown and f"{NAME}.facts" in shown and UNFINISHED in shown
    assert "sorted-00000" not in shown and names(workspace) == before
    assert main(["clean", str(workspace)]) == 0
    assert "Deleted from" in capsys.readouterr().out and names(workspace) == OTHERS
    assert main(["clean", str(workspace)]) == 0
    assert "holds no working files" in capsys.readouterr().out


def test_nothing_is_deleted_while_a_command_is_at_work(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(workspace)
    with lease(workspace, FOLDER):
        assert main(["clean", str(workspace)]) == 2
    assert "listing is in use: process" in capsys.readouterr().err and names(workspace) == before
