"""A lease in an object store that writes on a condition: one holder, even if the store's listings hide the others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aft_ray.cluster import claims as module
from aft_ray.cluster.conditional import Conditional, conditional
from aft_ray.cluster.lease import HOLDER, lease
from aft_ray.store.workspace import Workspace
from tests.helpers.turns import assert_the_second_waits

pytestmark = pytest.mark.slow

COUNT = """
import sys, time
from aft_ray.cluster import claims as module
from aft_ray.cluster.conditional import conditional
from aft_ray.cluster.lease import lease
from aft_ray.store.workspace import Workspace
module.LOOKED_EVERY_S = 0.01
place = Workspace.at(sys.argv[1])
assert conditional(place, "x") is not None
for _ in range(4):
    with lease(place, "runs/main"):
        number = int(place.read("counter"))
        time.sleep(0.005)
        place.write("counter", str(number + 1).encode())
"""


@pytest.fixture
def place(s3: str, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(module, "LOOKED_EVERY_S", 0.01)
    return Workspace.at(f"s3://bucket/{uuid.uuid4().hex}?{s3}")


@contextmanager
def others(*runs: Callable[[], None]) -> Iterator[None]:
    threads = [threading.Thread(target=run) for run in runs]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def test_a_file_is_created_once_and_replaced_only_as_it_was_read(place: Workspace) -> None:
    file = conditional(place, "one")
    assert file is not None and file.read() == (None, None)
    assert file.write("first", None) and not file.write("second", None)
    content, seen = file.read()
    assert content == "first"
    assert file.write("third", seen) and not file.write("fourth", seen) and file.read()[0] == "third"
    place.delete_file("one")
    assert not file.write("fifth", file.read()[1] or seen)
    assert place.names() == []


def test_a_server_that_the_environment_names_is_asked_too(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = s3.partition("&")[0].partition("=")[2]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
    file = conditional(Workspace.at(f"s3://bucket/{uuid.uuid4().hex}?region=us-east-1"), "one")
    assert file is not None and file.write("first", None) and not file.write("second", None)


@pytest.mark.processes
def test_of_processes_that_come_at_once_only_one_is_inside(place: Workspace, s3: str) -> None:
    place.write("counter", b"0")
    location = f"s3://{place}?{s3}"
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, location]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert place.read("counter") == b"8"


def test_only_one_is_inside_where_listings_hide_the_other_claims(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bakery alone lets all three in."""
    monkeypatch.setattr("aft_ray.cluster.claims.Claims.all", lambda self: [])
    inside: list[int] = []
    counts: list[int] = []

    def come() -> None:
        with lease(place, "runs/main"):
            inside.append(1)
            counts.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    with others(come, come, come):
        pass
    assert counts == [1, 1, 1]


@pytest.mark.parametrize("first_is_new", [True, False])
def test_a_command_without_conditional_writes_and_one_with_them_wait_for_each_other(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, first_is_new: bool
) -> None:
    """As an earlier version does, or a process without obstore."""
    is_new = threading.local()

    def known(directory: Workspace, name: str) -> Conditional | None:
        return conditional(directory, name) if is_new.value else None

    monkeypatch.setattr("aft_ray.cluster.lease.conditional", known)

    def becomes_the_other() -> None:
        is_new.value = not first_is_new

    is_new.value = first_is_new
    assert_the_second_waits(place, becomes_the_other)


def test_a_holder_whose_claim_is_gone_is_replaced_at_once_and_nothing_is_left_but_its_name(place: Workspace) -> None:
    queue = place / "leases/runs/main"
    queue.write(HOLDER, f"000000007-{'a' * 32}".encode())
    begun = time.monotonic()
    with lease(place, "runs/main"):
        (claim,) = (name for name in queue.names() if name != HOLDER)
        assert queue.read(HOLDER).decode() == claim
    assert time.monotonic() - begun < 5
    assert queue.names() == [HOLDER]


def test_a_server_that_ignores_conditions_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    moto = DomainDispatcherApplication(create_backend_app)

    def careless(environ: dict, start_response: Callable) -> Iterator[bytes]:
        for header in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"):
            environ.pop(header, None)
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, careless, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        host = f"127.0.0.1:{server.server_port}"
        boto3.client("s3", endpoint_url=f"http://{host}", region_name="us-east-1").create_bucket(Bucket="careless")
        place = Workspace.at(f"s3://careless/work?endpoint_override={host}&scheme=http")
        assert conditional(place, "x") is None
        with lease(place, "runs/main"):
            assert HOLDER not in (place / "leases/runs/main").names()
        assert [info.base_name for info in (place / "leases").infos() if info.is_file] == []
    finally:
        server.shutdown()


def test_a_disk_and_other_filesystems_have_no_conditional_writes(tmp_path: Path) -> None:
    assert conditional(Workspace.at(tmp_path), "x") is None
    assert conditional(Workspace.at(f"fsspec+local://{tmp_path}/work"), "x") is None
