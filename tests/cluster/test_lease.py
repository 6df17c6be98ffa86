"""Turns between real processes: nobody is inside twice, the dead are passed over, and who was taken for dead is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aft_ray.cluster import claims as module
from aft_ray.cluster.lease import lease
from aft_ray.store.files import STALE_AFTER_S
from aft_ray.store.workspace import Workspace
from tests.helpers.turns import assert_the_second_waits, left_before

pytestmark = pytest.mark.slow

COUNT = """
import sys, time
from pathlib import Path
from aft_ray.cluster import claims as module
from aft_ray.cluster.lease import lease
from aft_ray.store.workspace import Workspace
module.LOOKED_EVERY_S = 0.01
place, counter = Workspace.at(sys.argv[1]), Path(sys.argv[1], "counter")
for _ in range(6):
    with lease(place, "runs/main"):
        number = int(counter.read_text())
        time.sleep(0.005)
        counter.write_text(str(number + 1))
"""
HOLD = """
import sys, time
from aft_ray.cluster.lease import lease
from aft_ray.store.workspace import Workspace
with lease(Workspace.at(sys.argv[1]), "runs/main"):
    print("inside", flush=True)
    time.sleep(1000)
"""


def started(code: str, place: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen:
    """A process that was killed with the lease."""
    process = started(HOLD, tmp_path)
    assert process.stdout and process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process


@pytest.mark.processes
def test_of_processes_that_come_at_once_only_one_is_inside(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    processes = [started(COUNT, tmp_path) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "counter").read_text() == "24"
    assert Workspace.at(tmp_path / "leases/runs/main").names() == []


@pytest.mark.processes
def test_a_killed_owner_of_this_machine_is_passed_over_at_once(tmp_path: Path, holder: subprocess.Popen) -> None:
    started_at = time.monotonic()
    with lease(Workspace.at(tmp_path), "runs/main"):
        assert len(Workspace.at(tmp_path / "leases/runs/main").names()) == 1
    assert time.monotonic() - started_at < module.LOOKED_EVERY_S


@pytest.mark.processes
def test_a_silent_owner_elsewhere_is_waited_for_by_name_until_it_counts_as_dead(
    tmp_path: Path, holder: subprocess.Popen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(module, "DEAD_AFTER_S", 0.5)
    monkeypatch.setattr(module, "LOOKED_EVERY_S", 0.05)
    (claim,) = (tmp_path / "leases/runs/main").iterdir()
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "host": "elsewhere", "processes": "another boot"}))
    started_at = time.monotonic()
    with lease(Workspace.at(tmp_path), "runs/main"):
        assert time.monotonic() - started_at > 0.5
    told = capsys.readouterr().err
    assert f"aft-ray: waiting for runs/main: process {holder.pid} on elsewhere, there since 20" in told


def test_a_living_owner_is_waited_for_however_long_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("DEAD_AFTER_S", 0.3), ("RENEWED_EVERY_S", 0.05), ("LOOKED_EVERY_S", 0.02)):
        monkeypatch.setattr(module, name, seconds)
    place = Workspace.at(tmp_path)
    with lease(place, "runs/other"):
        assert left_before(lease(place, "runs/main"), lambda: lease(place, "runs/main"), stays_s=1.0)


def test_an_owner_that_was_taken_for_dead_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(module, "RENEWED_EVERY_S", 0.05)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run as a shell's background job
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(KeyboardInterrupt), lease(Workspace.at(tmp_path), "runs/main"):
        (claim,) = (tmp_path / "leases/runs/main").iterdir()
        claim.unlink()
        time.sleep(60)


STRANGE_CONTENTS = {
    "empty": b"",
    "truncated": b'{"host": "elsewhere", "pid": 12',
    "binary": bytes(range(256)),
    "another type": b"[1, 2]",
    "a process of all": b'{"host": "here", "pid": -1, "processes": null, "since": "now"}',
    "no number": b'{"host": "here", "pid": true, "processes": null, "since": "now"}',
    "a number too large": b'{"host": "here", "pid": 1e99, "processes": null, "since": "now"}',
    "escapes": b'{"host": "\\u001b[2J", "pid": 1, "processes": null, "since": "now"}',
    "depth": b"[" * 100_000,
}


@pytest.mark.parametrize("content", STRANGE_CONTENTS.values(), ids=STRANGE_CONTENTS)
def test_a_file_with_a_claims_name_but_other_content_is_passed_over_named_once_and_kept(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture
) -> None:
    place = tmp_path / "leases/runs/main"
    place.mkdir(parents=True)
    stray = place / f"000000001-{'a' * 32}"
    stray.write_bytes(content)
    with lease(Workspace.at(tmp_path), "runs/main"):
        pass
    told = capsys.readouterr().err
    assert told == f"aft-ray: {place}: ignored {stray.name!r}, not written by a lease.\n"
    assert stray.read_bytes() == content


def test_files_and_directories_of_other_names_are_passed_over_named_once_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place = tmp_path / "leases/runs/main"
    place.mkdir(parents=True)
    names = ["000000001-abc", "notes.txt", "-1", f"{'9' * 40}-{'b' * 32}", "a\nline"]
    for name in names:
        (place / name).touch()
    (place / f"000000001-{'c' * 32}").mkdir()
    os.mkfifo(place / f"000000001-{'d' * 32}")
    (place / f"000000001-{'e' * 32}").symlink_to(place / "nowhere")
    before = sorted(path.name for path in place.iterdir())
    with lease(Workspace.at(tmp_path), "runs/main"):
        pass
    (told,) = capsys.readouterr().err.splitlines()
    listed = [name for name in before if not (place / name).is_symlink()]  # a link to nothing is not
    assert all(repr(name) in told for name in listed)
    assert sorted(path.name for path in place.iterdir()) == before


def test_a_living_owner_is_waited_for_also_beside_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_EVERY_S", 0.02)
    place = tmp_path / "leases/runs/main"
    place.mkdir(parents=True)
    (place / f"000000000-{'a' * 32}").touch()
    assert_the_second_waits(Workspace.at(tmp_path))


def test_a_turn_begins_with_a_sweep_of_what_killed_commands_have_left(tmp_path: Path) -> None:
    long_ago = time.time() - 2 * STALE_AFTER_S
    part = tmp_path / "runs/main"
    old = ".{}.0123abcd.tmp".format
    ours = [
        tmp_path / old("extract.jsonl"),
        tmp_path / "leases/runs/main" / old("000000001-x"),
        part / old("metrics.jsonl"),
        part / "checkpoints/step-1" / old("task.safetensors"),
    ]
    kept = [
        part / ".mine.tmp",
        part / "a.0123abcd.tmp",
        part / old("link"),
        part / old("directory") / "file",
        tmp_path / "runs/other" / old("metrics.jsonl"),
        tmp_path / "notes" / old("metrics.jsonl"),
    ]
    young = part / old("config.yaml")
    for path in (*ours, *kept, young):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == old("link"):
            path.symlink_to(part / ".mine.tmp")
        else:
            path.write_text("left")
            if path != young:
                os.utime(path, (long_ago, long_ago))
    with lease(Workspace.at(tmp_path), "runs/main"):
        assert not any(path.exists() for path in ours)
        assert all(path.exists() for path in (*kept, young))
