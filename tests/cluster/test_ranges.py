"""Commands that divide the work below a lease, without a cluster: who works beside whom, and who waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from aft_ray.cluster import claims
from aft_ray.cluster.lease import lease
from aft_ray.cluster.ranges import Range, range_lease, whole_lease
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from tests.helpers.turns import left_before

pytestmark = pytest.mark.slow

HOLD = """
import sys, time
from aft_ray.cluster.ranges import Range, range_lease
from aft_ray.store.workspace import Workspace
with range_lease(Workspace.at(sys.argv[1]), "features", Range(1, 4)):
    print("inside", flush=True)
    time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LOOKED_EVERY_S", 0.02)


@contextmanager
def killed(place: Path) -> Iterator[Path]:
    """The claim of a process that was killed with range 1/4."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (claim,) = (place / "leases/features-ranges").iterdir()
    yield claim


@pytest.mark.parametrize("of", [1, 2, 3, 8])
def test_ranges_cover_every_shard_once_and_neighbours_are_apart(of: int) -> None:
    found = [index for number in range(of) for index in Range(number, of).indices(7)]
    assert sorted(found) == list(range(7))
    halves = [len([index for index in Range(number, of).indices(64) if index >= 32]) for number in range(of)]
    assert max(halves) - min(halves) <= 1, "whoever did the first half left as much to each"


@pytest.mark.parametrize(
    "text", ["", "1", "4/4", "1/0", "-1/4", "1/4/2", "a/b", "1 / 4", "1.5/4", "٣/4", "1/10001", "1/99999999999"]
)
def test_another_form_is_refused_with_the_form_that_is_right(text: str) -> None:
    with pytest.raises(InputError) as error:
        Range.parsed(text)
    (fault,) = error.value.faults
    assert fault.startswith("--range is ") and "/4" in fault


def test_ranges_work_side_by_side_and_each_can_take_the_lease(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    with range_lease(place, "features", Range(0, 2)), range_lease(place, "features", Range(1, 2)):
        with lease(place, "features"):
            assert len(list((tmp_path / "leases/features-ranges").iterdir())) == 2
    assert not list((tmp_path / "leases/features-ranges").iterdir())


@pytest.mark.parametrize("order", ["range, same range", "range, whole", "whole, range"])
def test_the_same_range_and_all_of_the_work_wait_for_a_range(
    tmp_path: Path, order: str, capsys: pytest.CaptureFixture
) -> None:
    place, comers = Workspace.at(tmp_path), order.split(", ")

    def come(kind: str) -> AbstractContextManager[None]:
        return whole_lease(place, "features") if kind == "whole" else range_lease(place, "features", Range(1, 4))

    assert left_before(come(comers[0]), lambda: come(comers[1]))
    waited_for = {
        "range, same range": "range 1/4 of features",
        "range, whole": "ranges of features",
        "whole, range": "features",
    }
    assert f"aft-ray: waiting for {waited_for[order]}: process {os.getpid()} on " in capsys.readouterr().err


def test_another_number_of_ranges_is_refused_by_name_while_some_are_at_work_and_taken_afterwards(
    tmp_path: Path,
) -> None:
    place = Workspace.at(tmp_path)
    with range_lease(place, "features", Range(3, 4)):
        with pytest.raises(
            InputError, match=f"--range is 0/2, and range 3/4 is at work in .*process {os.getpid()}.* Give i/4"
        ):
            with range_lease(place, "features", Range(0, 2)):
                pass
    with range_lease(place, "features", Range(0, 2)):
        pass


@pytest.mark.processes
def test_a_killed_range_of_this_machine_hinders_nobody(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    for comer in (
        lambda: range_lease(place, "features", Range(1, 4)),
        lambda: range_lease(place, "features", Range(0, 2)),
        lambda: whole_lease(place, "features"),
    ):
        with killed(tmp_path) as claim:
            started = time.monotonic()
            with comer():
                assert not claim.exists() and time.monotonic() - started < 5


@pytest.mark.processes
def test_a_range_elsewhere_counts_as_dead_once_it_is_silent_and_as_living_as_soon_as_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "DEAD_AFTER_S", 0.5)
    place = Workspace.at(tmp_path)
    with killed(tmp_path) as claim:
        elsewhere = json.dumps({**json.loads(claim.read_text()), "host": "elsewhere", "processes": "another boot"})
        claim.write_text(elsewhere)
        renewer = threading.Timer(0.2, claim.write_text, [elsewhere])
        renewer.start()
        with pytest.raises(InputError, match="range 1/4 is at work in .*: process .* on elsewhere"):
            with range_lease(place, "features", Range(0, 2)):
                pass
        renewer.join()
        with range_lease(place, "features", Range(0, 2)):
            assert not claim.exists()
