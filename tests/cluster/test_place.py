"""The directory of a local cluster goes with its command; a killed command's stays for a day."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from aft_ray.cluster.place import STALE_AFTER_S, cluster_place


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's temporary directory, with a short path wherever the tests keep theirs."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("aft_ray.cluster.place.LONGEST", 1000)
    place = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place / f"aft-clusters-{os.getuid()}"


def used(place: str | None) -> Path:
    """What Ray does with it: a session with logs."""
    assert place is not None
    session = Path(place) / "session_1"
    session.mkdir()
    (session / "raylet.err").write_text("it ended\n")
    return Path(place)


def make_old(place: Path) -> None:
    long_ago = time.time() - 2 * STALE_AFTER_S
    os.utime(place, (long_ago, long_ago))


def test_a_command_that_ends_well_leaves_no_directory(temporary: Path) -> None:
    with cluster_place() as place:
        assert used(place).parent == temporary and (temporary.stat().st_mode & 0o777) == 0o700
    assert list(temporary.iterdir()) == []


def test_a_failed_command_s_logs_stay_for_a_day(temporary: Path) -> None:
    with pytest.raises(RuntimeError), cluster_place() as place:
        failed = used(place)
        raise RuntimeError
    with cluster_place():
        assert (failed / "session_1" / "raylet.err").read_text() == "it ended\n"
    make_old(failed)
    with cluster_place() as place:
        assert [str(found) for found in temporary.iterdir()] == [place]


def test_a_directory_in_use_stays_however_old_it_is(temporary: Path) -> None:
    with cluster_place() as one:
        make_old(used(one))
        with cluster_place() as other:
            assert {str(found) for found in temporary.iterdir()} == {one, other}
        assert [str(found) for found in temporary.iterdir()] == [one]


def test_files_beside_the_directories_stay(temporary: Path) -> None:
    temporary.mkdir()
    (temporary / "notes.txt").write_text("mine")
    make_old(temporary / "notes.txt")
    with cluster_place():
        pass
    assert [found.name for found in temporary.iterdir()] == ["notes.txt"]


def test_a_path_too_long_for_sockets_gives_way_to_a_short_one_and_a_line_says_so(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("aft_ray.cluster.place.LONGEST", len(str(temporary)) - 1)
    monkeypatch.setattr("aft_ray.cluster.place.SHORT", tmp_path)
    with cluster_place() as place:
        assert used(place).parent == tmp_path / temporary.name and not temporary.exists()
    assert f"Ray's files go to {tmp_path / temporary.name}: {temporary.parent} is too long" in capsys.readouterr().err


def test_a_place_of_the_user_s_is_left_to_ray(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/elsewhere")
    with cluster_place() as place:
        assert place is None and not temporary.exists()


def test_nothing_is_made_or_deleted_behind_a_link(temporary: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "old").mkdir(parents=True)
    os.utime(other / "old", (0, 0))
    temporary.symlink_to(other)
    with cluster_place() as place:
        assert place is None
    assert [path.name for path in other.iterdir()] == ["old"]
