"""An export replaces the one before whole, and keeps what it did not write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aft_ray.export import replacement
from aft_ray.export.replacement import publish, staging, write_record
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from tests.helpers.dying import Killed, dying

FILES = ("README.md", "config.json", "deep/model.safetensors")


def write(folder: Path, text: str) -> None:
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    write_record(folder, {"made from": text})


def exported(target: Directory, text: str) -> Directory:
    with staging(target) as folder:
        write(folder, text)
        return publish(folder, target)


def found(place: Path) -> set[str]:
    """The text of all files, which says whose they are."""
    facts = json.loads((place / "lineage.json").read_text())
    assert set(facts["files"]) == set(FILES)
    return {(place / name).read_text() for name in FILES} | {facts["made from"]}


KILLED_AT_EVERY_STEP = """
import os, sys
from pathlib import Path
from aft_ray.store.workspace import Workspace
from tests.export.test_replacement import exported, found

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "ctypes.dlsym", "open")
place = Path(sys.argv[1])
exported(Workspace.at(place), "old")
outcomes = []
for step in range(1000):
    if not os.fork():
        left = [step]
        def hook(event, arguments):
            if event in CHANGES:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
        sys.addaudithook(hook)
        exported(Workspace.at(place), "new")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    outcomes.append(found(place))
    assert outcomes[-1] in ({"old"}, {"new"}), outcomes[-1]
    if status == 0:
        break
assert outcomes[0] == {"old"} and outcomes[-1] == {"new"} and step > 15, step
assert [path.name for path in place.parent.iterdir()] == ["export"], list(place.parent.iterdir())
"""


@pytest.mark.processes
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere two renames leave a moment without an export"
)
def test_a_kill_at_any_step_leaves_the_old_export_or_the_new_one(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED_AT_EVERY_STEP, str(tmp_path / "run" / "export")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_where_directories_cannot_change_places_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacement, "exchange", lambda left, right: False)
    target = Workspace.at(tmp_path / "export")
    for text in ("old", "new"):
        exported(target, text)
        assert found(tmp_path / "export") == {text} and target.names() == [
            "README.md",
            "config.json",
            "deep",
            "lineage.json",
        ]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize(
    "change",
    ["a file of the user's", "a pipe of the user's", "a card that was edited", "an export of an earlier version"],
)
def test_what_was_added_or_changed_is_kept_and_named(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "export"
    exported(Workspace.at(place), "old")
    if change == "a file of the user's":
        (place / ".git").mkdir()
        (place / ".git" / "config").write_text("mine")
    elif change == "a pipe of the user's":
        os.mkfifo(place / "pipe")
    elif change == "a card that was edited":
        (place / "README.md").write_text("better words")
    else:
        (place / "lineage.json").write_text("{}")
    before = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    exported(Workspace.at(place), "new")
    assert found(place) == {"new"}
    (kept,) = tmp_path.glob("export-before-*")
    assert {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before
    assert f"the old export is kept as {kept}." in capsys.readouterr().err


@pytest.mark.parametrize("changes", range(6))
def test_in_an_object_store_one_file_says_which_export_is_valid(changes: int, tmp_path: Path) -> None:
    old = exported(dying(tmp_path / "run" / "export", 100), "old")
    assert Path(old.path).name.startswith("export-")
    try:
        exported(dying(tmp_path / "run" / "export", changes), "new")
        assert changes == 5  # four files and the one that makes them valid
    except Killed:
        assert changes < 5
    valid = json.loads((tmp_path / "run" / "export.json").read_text())["directory"]
    assert found(tmp_path / "run" / valid) == ({"new"} if changes == 5 else {"old"})


def test_a_folder_with_the_name_of_an_unfinished_export_stays_if_it_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / ".export-0123abcd").mkdir()
    (tmp_path / ".export-0123abcd" / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".export-0123abce").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".export-0123abcf").mkdir()  # killed before its first file
    exported(Workspace.at(tmp_path / "export"), "new")
    assert (tmp_path / ".export-0123abcd" / "notes.txt").read_text() == "mine"
    left = ["export", ".export-0123abcd", ".export-0123abce", "elsewhere"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)
