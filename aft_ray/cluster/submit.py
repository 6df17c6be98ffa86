"""submit: runs a verb as a job of a Ray cluster, uploads the recipe and its code, and follows the log.

Local checks run before the upload. The job checks the cluster before it works (`preflight`), with the same messages and
exit status.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

import aft_ray
from aft_ray.cluster.scratch import scratch
from aft_ray.cluster.upload import check_hides_nothing, travelling, write_zip
from aft_ray.recipe.config import Recipe, dump, fingerprint
from aft_ray.recipe.errors import InputError, in_a_line

T = TypeVar("T")

RECONNECT_S, GONE_AFTER_S = 1.0, 30.0
RECIPE = "recipe.yaml"
"""Name of the resolved recipe or study in the job's directory."""


@dataclass(frozen=True)
class JobFile:
    """The resolved YAML file of a job, a recipe or a study. identity: its content, hashed."""

    text: str
    workspace: str
    run: str
    identity: str

    @classmethod
    def of(cls, recipe: Recipe) -> JobFile:
        return cls(dump(recipe), recipe.workspace, recipe.run, fingerprint(recipe.model_dump(mode="json")))


class ClusterGone(Exception):
    """The cluster does not answer any more."""


def connect(address: str) -> JobSubmissionClient:
    """Raises InputError if no job server answers at `address`, or not to us."""
    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers it, and RAY_ADDRESS, to its own argument
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        raise InputError(
            f"No Ray cluster takes jobs at {address} ({in_a_line(error)}). Give the head's dashboard, --address http://HEAD:8265,"
            " and on a cluster with tokens set RAY_AUTH_MODE=token."
        ) from error


def submit(client: JobSubmissionClient, file: JobFile, verb: str, arguments: Sequence[str], *, directory: Path) -> str:
    """Starts `aft-ray VERB recipe.yaml ARGUMENTS` on the cluster and returns the job's id. Uploads `directory`, which may
    hold the user's classes and small data.

    Raises InputError if the file's workspace would end with the job, or the upload is too large; ClusterGone.
    """
    check_outlives_job("workspace", file.workspace)
    with scratch() as place:
        upload = pack(file, directory, place)
        try:
            return client.submit_job(
                entrypoint=shlex.join(["python", "-m", "aft_ray.cli", verb, RECIPE, *arguments]),
                runtime_env={"working_dir": str(upload)},
                metadata={
                    "verb": verb,
                    "workspace": file.workspace,
                    "run": file.run,
                    "recipe": file.identity,
                },
            )
        except (OSError, RuntimeError) as error:
            raise ClusterGone(in_a_line(error)) from error


def check_outlives_job(key: str, place: str) -> None:
    """Raises InputError if `place`, the value of `key`, would lie in the job's own directory."""
    if "://" not in place and not Path(place).expanduser().is_absolute():
        raise InputError(
            f"{key} {place!r} would lie in the job's own directory and be lost. Give a directory that all machines mount,"
            " from its root on, or an object store's URL."
        )


def pack(file: JobFile, directory: Path, place: Path) -> Path:
    """Zips `directory`, less the files that its .gitignore names, with this package and the job's file, in `place`.

    Raises InputError if the upload would be larger than Ray accepts, or hides a module of Python's.
    """
    workspace, package = Path(file.workspace).expanduser(), Path(aft_ray.__file__).parent
    recipe = place / RECIPE
    recipe.write_text(file.text, encoding="utf-8")
    own = [f"/{name}" for name in (RECIPE, package.name)]
    if workspace.is_relative_to(directory):
        own.append(f"/{workspace.relative_to(directory)}")
    files = {f"{package.name}/{name}": path for name, path in travelling(package).items()}
    upload = place / "job.zip"
    of_user = travelling(directory, own)
    check_hides_nothing(of_user, directory)
    write_zip(upload, {**of_user, **files, RECIPE: recipe}, directory)
    return upload


def follow(client: JobSubmissionClient, job: str, show: Callable[[str], None]) -> int:
    """Shows the job's log until it ends, and returns its exit status: 0, 2 or 1. Reconnects after a lost connection.

    Raises ClusterGone if nothing answers for GONE_AFTER_S. KeyboardInterrupt stops following the log; the job keeps running.
    """
    shown = 0

    async def tail() -> None:
        nonlocal shown
        seen = 0
        async for chunk in client.tail_job_logs(job):
            show(chunk[max(0, shown - seen) :])
            seen += len(chunk)
            shown = max(shown, seen)

    with _noted_interrupts() as noted:
        while not (details := _answer(lambda: client.get_job_info(job))).status.is_terminal():
            try:
                asyncio.run(tail())
            except (aiohttp.ClientError, OSError, RuntimeError):
                if noted:
                    raise KeyboardInterrupt from None
                time.sleep(RECONNECT_S)  # `_answer` finds out whether the cluster itself is gone
        show(_answer(lambda: client.get_job_logs(job))[shown:])
    if details.status == JobStatus.SUCCEEDED:
        return 0
    return 2 if details.driver_exit_code == 2 else 1


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Yields a list of the Ctrl-Cs so far. Each raises KeyboardInterrupt, at the latest when the context ends.

    asyncio's own handler asks the coroutine to end. If the job ends in the same moment, an error of the connection that is
    closed takes the place of the interrupt.
    """
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
    if noted:
        raise KeyboardInterrupt


def _answer(ask: Callable[[], T]) -> T:
    """The cluster's answer; asks again while the cluster cannot be reached."""
    until = time.monotonic() + GONE_AFTER_S
    while True:
        try:
            return ask()
        except (
            OSError,
            RuntimeError,
        ) as error:  # requests raises OSErrors, Ray turns any other answer into RuntimeError
            if time.monotonic() > until:
                raise ClusterGone(in_a_line(error)) from error
            time.sleep(RECONNECT_S)
