from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import threading
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from aft_ray.training.inputs.machine_cache import ArrayCache

CONTEXT = multiprocessing.get_context("fork")


def made(directory: Path) -> dict[str, np.ndarray]:
    with (directory.parent / "made").open("a") as log:
        log.write("once\n")
    return {"numbers": np.arange(6), "names": np.array(["a", "bc"])}


def take(directory: Path, ready: Barrier) -> None:
    with ArrayCache(directory) as cache:
        ready.wait()
        arrays = cache.get("key", lambda: made(directory))
        assert arrays["numbers"].tolist() == list(range(6)) and not arrays["numbers"].flags.writeable
        ready.wait()  # nobody leaves before all have it


def die_while_making(directory: Path) -> None:
    def make() -> dict[str, np.ndarray]:
        (directory / ".key.half").mkdir()
        os._exit(1)

    with ArrayCache(directory) as cache:
        cache.get("key", make)


def die_while_using(directory: Path) -> None:
    with ArrayCache(directory) as cache:
        cache.get("key", lambda: made(directory))
        os._exit(1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "arrays"


def left(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_dir()}


def locks(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_file()}


@pytest.mark.processes
def test_processes_that_want_the_same_make_it_once_and_the_last_deletes_it(directory: Path) -> None:
    ready = CONTEXT.Barrier(4)
    processes = [CONTEXT.Process(target=take, args=(directory, ready)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (directory.parent / "made").read_text() == "once\n" and left(directory) == set()
    assert locks(directory) == set()


@pytest.mark.processes
def test_a_crash_leaves_nothing_that_stops_the_next(directory: Path) -> None:
    for target in (die_while_making, die_while_using):
        process = CONTEXT.Process(target=target, args=(directory,))
        process.start()
        process.join()
        assert process.exitcode == 1
    assert left(directory) == {"key"}
    with ArrayCache(directory) as cache:
        found = cache.get("key", lambda: pytest.fail("the killed process has left it whole"))
        assert found["names"].tolist() == ["a", "bc"]
    assert left(directory) == locks(directory) == set()


def test_what_nobody_has_used_for_a_day_is_deleted_and_what_is_used_stays(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aft_ray.training.inputs.machine_cache.STALE_AFTER_S", -1.0)
    with ArrayCache(directory) as one:
        one.get("used", lambda: made(directory))
        (directory / "unused").mkdir()
        (directory / "of-before.using").touch()
        with ArrayCache(directory) as other:
            other.get("new", lambda: made(directory))
            assert left(directory) == {"used", "new"}
    assert left(directory) == locks(directory) == set()


def test_who_waits_for_a_lock_that_is_deleted_takes_the_new_one(directory: Path) -> None:
    """The last user deletes arrays and locks while another asks for them."""
    with ArrayCache(directory) as last, ArrayCache(directory) as other:
        last.get("key", lambda: made(directory))
        with last._locked("key", "making", fcntl.LOCK_EX):
            waiting = threading.Thread(target=other.get, args=("key", lambda: made(directory)))
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
            (directory / "key.making").unlink()
            shutil.rmtree(directory / "key")
        waiting.join(20)
        assert not waiting.is_alive() and (directory.parent / "made").read_text() == "once\n" * 2
        assert (directory / "key.making").exists()
    assert left(directory) == locks(directory) == set()


def test_without_room_on_the_disk_every_process_has_its_own(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "aft_ray.training.inputs.machine_cache.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})()
    )
    with ArrayCache(directory) as cache:
        assert cache.get("key", lambda: made(directory))["numbers"].flags.writeable and left(directory) == set()


def test_nothing_is_read_made_or_deleted_behind_a_link(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The link leads to arrays of the same key and to old files, as another user could lay them there."""
    monkeypatch.setattr("aft_ray.training.inputs.machine_cache.STALE_AFTER_S", -1.0)
    other = directory.parent / "other"
    (other / "old").mkdir(parents=True)
    (other / "key").mkdir()
    np.save(other / "key" / "numbers.npy", np.zeros(6))
    directory.symlink_to(other)
    with ArrayCache(directory) as cache:
        for key in ("key", "new"):
            assert cache.get(key, lambda: made(directory))["numbers"].tolist() == list(range(6))
    assert left(other) == {"old", "key"} and locks(other) == set()
    assert caplog.text.count("is a link, a file or another user's: every worker holds its own copy") == 1
