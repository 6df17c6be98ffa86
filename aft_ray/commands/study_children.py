"""Settings of a study side by side: each in a process of its own, on the cluster of this process.

A process is `aft-ray study STUDY --only SETTING`. It stops when this process ends, also by SIGKILL. Processes share what a
cluster's commands share: a lease on samples and on each teacher's features makes all but one wait for work that it does for all,
and gangs and trials wait for room.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Lock
from typing import TYPE_CHECKING

from aft_ray.cluster.scratch import scratch
from aft_ray.commands.own_modules import command_of_own
from aft_ray.recipe.printable import counted

if TYPE_CHECKING:
    from aft_ray.study.config import Study

FAULT = "aft-ray: Setting "
STOPPED_WITHIN_S = 30.0


def run_side_by_side(study: Study, names: Sequence[str], announce: Callable[[str], None], at_once: int) -> list[str]:
    """Runs the settings `names`, `at_once` of them at a time. Returns the faults of settings that could not run."""
    import ray

    from aft_ray.study.report import report_study

    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    announce(f"{counted(len(names), 'setting')}, {at_once} side by side")
    faults: list[str] = []
    with scratch() as folder:
        file = folder / "study.yaml"
        file.write_text(study.text(), encoding="utf-8")
        told = [str(file), *study.overrides, "--at-once", "1", "--with-parent", "--only"]
        command = [*command_of_own(), "study", *told]
        children = _Children(command, environment)
        with ThreadPoolExecutor(at_once) as pool:
            running = {pool.submit(children.run, name): name for name in names}
            try:
                for number, future in enumerate(as_completed(running), 1):
                    faults += future.result()
                    announce(f"[{number}/{len(names)}] {running[future]}: {'left out' if future.result() else 'done'}")
                    report_study(study)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                children.stop()
    return faults


class _Children:
    """The processes that run. command: that the setting's name ends. After `stop` none starts."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.command, self.environment = command, environment
        self.running: set[subprocess.Popen[str]] = set()
        self.is_stopped, self.lock = False, Lock()

    def run(self, name: str) -> list[str]:
        """Runs the setting to its end and shows its progress under its name. Returns its faults."""
        with self.lock:  # `stop` comes before this process starts, or knows it
            if self.is_stopped:
                return []
            child = self._start(name)
            self.running.add(child)
        faults, last = [], ""
        for line in child.stderr or ():
            print(f"{name}: {line}", end="", file=sys.stderr, flush=True)
            last = line.strip() or last
            if line.startswith(FAULT):
                faults.append(line.strip().removeprefix("aft-ray: "))
        status = child.wait()
        if child.stdin:
            child.stdin.close()
        self.running.discard(child)
        return faults or ([f"Setting {name}: its process ended with status {status}: {last}"] if status else [])

    def _start(self, name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, name],
            env=self.environment,
            stdin=subprocess.PIPE,  # open as long as this process lives: see `end_with_parent`
            stdout=subprocess.DEVNULL,  # the tables of the study so far
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def stop(self) -> None:
        """Asks the processes that still run to stop, as Ctrl-C does, and waits for them."""
        with self.lock:
            self.is_stopped, running = True, list(self.running)
        for child in running:
            child.terminate()
        for child in running:
            try:
                child.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                child.kill()
