"""A cluster as README starts one: `ray start`, with tokens, apart from any other Ray of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import ROOT

RAY = str(Path(sys.executable).parent / "ray")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]


@dataclass(frozen=True)
class Started:
    """address: of the cluster. dashboard: where jobs are submitted. environment: of everything that talks to it."""

    address: str
    dashboard: str
    environment: dict[str, str]

    def run(
        self, *command: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `command` to its end; `environment` is added to that of the cluster."""
        full = self.environment | dict(environment or {})
        return subprocess.run(command, capture_output=True, text=True, env=full, cwd=cwd, timeout=180)


def clean_environment(home: Path) -> dict[str, str]:
    """Without what this session's Ray has set, and with a home directory, for tokens, of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    return kept | {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT)} | settings


@contextmanager
def started(
    tmp_path: Path,
    *head: str,
    nodes: Mapping[str, tuple[str, ...]] | None = None,
    environment: Mapping[str, str] | None = None,
    scaling: dict[str, Any] | None = None,
) -> Iterator[Started]:
    """A head with `ray start` options `head`, and a node for each of `nodes`; all ends with the context.

    scaling: how nodes come and go by themselves, on Ray's simulated machines.
    """
    home = tmp_path / "home"
    home.mkdir()
    full = clean_environment(home) | dict(environment or {})
    subprocess.run([RAY, "get-auth-token", "--generate"], env=full, check=True, capture_output=True)
    port, dashboard, client, agent = free_ports(4)
    address, url = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
    if scaling is not None:
        config = tmp_path / "scaling.yaml"
        provider = {"type": "fake_multinode", "gcs_address": address, "launch_multiple": True}
        provider["use_node_id_as_ip"] = True  # they all have this machine's address
        config.write_text(json.dumps(scaling | {"provider": provider}))  # JSON is YAML
        head = (*head, f"--autoscaling-config={config}")
    common = ["--block", "--disable-usage-stats", "--object-store-memory", str(100 << 20)]
    temporary = f"/tmp/aft-{os.getpid()}-{port}"  # short: sockets lie below it
    commands = [
        [
            RAY,
            "start",
            "--head",
            f"--port={port}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            "--dashboard-host=127.0.0.1",
            f"--temp-dir={temporary}",
            f"--dashboard-agent-listen-port={agent}",
            *common,
            *head,
        ],
        *(
            [RAY, "start", f"--address={address}", f"--temp-dir={temporary}-{name}", *common, *options]
            for name, options in (nodes or {}).items()
        ),
    ]
    with ExitStack() as stack:
        for name in ("", *(f"-{name}" for name in nodes or {})):
            stack.callback(shutil.rmtree, temporary + name, ignore_errors=True)
        stack.callback(_end_all, temporary)
        for number, command in enumerate(commands):
            log = stack.enter_context((tmp_path / f"ray-{number}.log").open("w"))
            process = subprocess.Popen(command, env=full, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait, timeout=30)
            stack.callback(process.send_signal, signal.SIGTERM)
            if number == 0:
                _wait_until_up(process, f"http://127.0.0.1:{agent}/api/local_raylet_healthz", tmp_path / "ray-0.log")
        yield Started(address, url, full | {"RAY_API_SERVER_ADDRESS": url})


def as_in_a_terminal() -> None:
    """Before a child begins: it takes Ctrl-C and the end of its terminal, which nohup and a shell's background ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _end_all(temporary: str) -> None:
    """What works below a temporary directory: nodes that came by themselves outlive a head that fails."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if temporary.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:  # it has ended
            continue


def _wait_until_up(process: subprocess.Popen, url: str, log: Path) -> None:
    """Until the agent that starts jobs answers at all, if only that a token is missing."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(log.read_text())


def processes_with(mark: str) -> list[Path]:
    """The processes that have `mark` in their environment: a command and all that it has started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append(place)
        except OSError:
            continue
    return found
