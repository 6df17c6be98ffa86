"""A scratch directory goes with its process; a killed process's goes when the next one is made."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from aft_ray.cluster.scratch import GRACE_S, scratch
from tests.helpers import ROOT


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they lie, in a temporary directory of the test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"aft-scratch-{os.getuid()}"


def left_by_a_killed_process(place: Path, name: str, *, age_s: float) -> Path:
    folder = place / name
    (folder / "content").mkdir(parents=True)
    (folder / "in-use").write_bytes(b"")
    (folder / "content" / "weights").write_bytes(b"checkpoint")
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def test_a_killed_process_s_directory_goes_and_one_that_is_in_use_stays(place: Path) -> None:
    place.mkdir(mode=0o700)
    dead = left_by_a_killed_process(place, "dead", age_s=2 * GRACE_S)
    young = left_by_a_killed_process(place, "young", age_s=0)
    with scratch() as one:
        assert not dead.exists() and young.exists(), "its process may be about to lock it"
        (one / "weights").write_bytes(b"mine")
        long_ago = time.time() - 2 * GRACE_S
        os.utime(one.parent, (long_ago, long_ago))
        with scratch() as other:
            assert (one / "weights").exists() and list(other.iterdir()) == []
    assert list(place.iterdir()) == [young]


def test_a_directory_without_our_lock_is_somebody_s_and_stays(place: Path) -> None:
    place.mkdir(mode=0o700)
    theirs = left_by_a_killed_process(place, "theirs", age_s=2 * GRACE_S)
    (theirs / "in-use").unlink()
    then = time.time() - 2 * GRACE_S
    os.utime(theirs, (then, then))
    with scratch():
        pass
    assert [path.name for path in theirs.rglob("*")] == ["content", "weights"]


def test_a_link_with_the_name_is_not_followed(place: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    theirs = left_by_a_killed_process(elsewhere, "theirs", age_s=2 * GRACE_S)
    place.symlink_to(elsewhere)
    with scratch() as folder:
        assert folder.is_dir() and not folder.is_relative_to(elsewhere)
    assert theirs.exists() and not folder.exists()


def test_an_error_inside_leaves_nothing(place: Path) -> None:
    with pytest.raises(RuntimeError), scratch():
        raise RuntimeError
    assert list(place.iterdir()) == []


def test_no_other_module_makes_temporary_directories_that_outlive_a_kill() -> None:
    delete_left_overs = {
        "cluster/scratch.py",
        "cluster/place.py",
        "models/fetched.py",
        "training/inputs/machine_cache.py",
    }
    package = ROOT / "aft_ray"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"mkdtemp|mkstemp|TemporaryDirectory|NamedTemporaryFile", path.read_text(encoding="utf-8"))
    }
    assert found == delete_left_overs
