"""A cluster that does not start or answer is one line with the way out, within seconds."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from aft_ray import cli
from aft_ray.cluster.address import check_answers
from aft_ray.recipe.errors import InputError


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"workspace: {tmp_path}/work\ndataset: {{name: mnist5k}}\nstudent: {{model: 'tiny:cnn'}}\n"
        "teachers: [{model: 'tests.helpers.own_teachers:Means', name: means}]\n"
    )
    return str(path)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_cluster_that_does_not_answer_is_one_line_at_once(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address := f"127.0.0.1:{closed_port()}")
    started = time.monotonic()
    assert cli.main(["plan", recipe]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("aft-ray: joining the cluster")
    assert last.startswith(f"aft-ray: No cluster answers at RAY_ADDRESS={address}: ") and "unset RAY_ADDRESS" in last
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("address", ["local", "auto", "ray://[::1]"])
def test_addresses_without_a_port_are_ray_s_own_business(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    check_answers()


def test_a_port_that_listens_answers_and_an_unknown_host_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{server.getsockname()[1]}")
        check_answers()
    monkeypatch.setenv("RAY_ADDRESS", "no-such-host.invalid:6379")
    with pytest.raises(InputError, match="No cluster answers at RAY_ADDRESS=no-such-host.invalid:6379"):
        check_answers()


def test_ray_that_does_not_start_in_time_is_one_line(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    def late(address: str, **options: object) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", late)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the cluster of the other tests stays
    assert cli.main(["plan", recipe]) == 1
    _, told = capsys.readouterr().err.splitlines()
    assert told.startswith("aft-ray: Ray did not start: The current node timed out during startup. The machine may be")


def test_ray_train_reads_the_variables_that_are_set_for_it() -> None:
    """Where Ray renames one, this test tells."""
    from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR, HEALTH_CHECK_INTERVAL_S_ENV_VAR

    assert os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR] == "0" and os.environ[HEALTH_CHECK_INTERVAL_S_ENV_VAR] == "0.2"


def test_a_terminal_shows_a_line_before_the_seconds_of_imports_and_a_script_sees_faults_alone(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["extract", recipe]) == 2
    faults = capsys.readouterr().err.splitlines()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main(["extract", recipe]) == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith("aft-ray: extract in ") and others == faults
