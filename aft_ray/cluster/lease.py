"""A lease: only one command at a time writes a given part of a workspace; others wait and find the work done.

pyarrow can neither rename a file of an object store nor create one exclusively, so this is Lamport's bakery algorithm
(doi 10.1145/361082.361093) with whole files. A command writes a claim, draws a number above all others, then waits until
no claim has a lower number. It rewrites its claim while it lives. A claim is dead if it was not rewritten for a minute of
the waiter's own clock, or if its process is known to be gone; the command that waits for it removes it.

The bakery trusts the store's listings. Where the store has conditional writes, a command whose turn has come also writes
its claim's name into HOLDER, which succeeds only for one: others wait while the claim that HOLDER names exists. Commands
without obstore or of earlier versions do not look at HOLDER, and keep their turns by the claims, which all have.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import pyarrow.fs as pafs
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from aft_ray.cluster.conditional import Conditional, conditional
from aft_ray.recipe.printable import tell
from aft_ray.store.files import Directory

RENEWED_EVERY_S, DEAD_AFTER_S, LOOKED_EVERY_S = 5.0, 60.0, 1.0
DRAWING = 0
HOLDER = ".holder"
"""Earlier versions pass over a name that begins with a dot."""
CLAIM = re.compile(r"(\d{9,19})-([0-9a-f]{32})")

Printable = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]

logger = logging.getLogger(__name__)


class _Claim(NamedTuple):
    """A file in the directory of a lease, ordered by turn. number: DRAWING until it has one.

    The content names the process and never changes; the file's time shows when the process last rewrote it.
    """

    number: int
    process: str
    written_ns: int = 0

    @property
    def file(self) -> str:
        return f"{self.number:09d}-{self.process}"


@contextmanager
def lease(workspace: Directory, name: str) -> Iterator[None]:
    """`with lease(workspace, "runs/main"):` only one process at a time is inside. Waits for its turn and says for whom.

    A process that stood still for a minute may have been taken for dead; it is then interrupted, as by Ctrl-C.
    """
    queue, owner, done = _Queue(workspace / "leases" / name), _Owner.this_process(), threading.Event()
    drawing = own = _Claim(DRAWING, uuid.uuid4().hex)
    queue.write(drawing, owner)
    try:
        own = _Claim(1 + max((claim.number for claim in queue.claims()), default=0), drawing.process)
        queue.write(own, owner)
    finally:
        queue.remove(drawing)
    renewer = threading.Thread(target=_renew, args=(queue, own, owner, done), daemon=True)
    renewer.start()
    try:
        _take(queue, own, name)
        _sweep(workspace, queue.place, workspace / name)
        yield
    finally:
        done.set()
        renewer.join()
        queue.remove(own)


def _sweep(workspace: Directory, queue: Directory, part: Directory) -> None:
    """Deletes the temporary files of killed commands: in the part that is now this command's, and beside it."""
    workspace.delete_left_overs()
    queue.delete_left_overs()
    part.delete_left_overs(below=True)


class _Owner(BaseModel, strict=True, frozen=True):
    """The content of a claim: the process that wrote it. `processes` names the process table in which `pid` counts."""

    host: Printable
    pid: int = Field(gt=0, lt=2**31)
    processes: str | None
    since: Printable

    @classmethod
    def this_process(cls) -> _Owner:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return cls(host=socket.gethostname(), pid=os.getpid(), processes=_processes(), since=since)

    def is_gone(self) -> bool:
        """Whether the process is known to have ended. False if it cannot be seen from this machine."""
        if self.processes is None or self.processes != _processes():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


def _processes() -> str | None:
    """Names a process table: the boot of a machine and a container on it. Several machines may share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return None


class _Queue:
    """The claims in the directory of a lease. Any other file there is left alone and named once."""

    def __init__(self, place: Directory) -> None:
        self.place = place
        self.strangers: set[str] = set()

    def claims(self) -> list[_Claim]:
        found, strangers = [], []
        for info in self.place.infos():
            name = info.base_name
            if name in self.strangers or name.startswith("."):
                continue
            if info.type == pafs.FileType.File and (parts := CLAIM.fullmatch(name)):
                found.append(_Claim(int(parts[1]), parts[2], info.mtime_ns))
            else:
                strangers.append(name)
        self._ignore(strangers)
        return sorted(found)

    def owner(self, claim: _Claim) -> _Owner | None:
        """The process of a claim; None if its turn has just ended, or if the file is no claim.

        Claims are written whole: a file that cannot be parsed was never one.
        """
        try:
            return _Owner.model_validate_json(self.place.read(claim.file))
        except ValidationError:
            self._ignore([claim.file])
        except OSError:
            if self.place.has(claim.file):
                raise
        return None

    def write(self, claim: _Claim, owner: _Owner) -> None:
        self.place.write(claim.file, owner.model_dump_json().encode())

    def remove(self, claim: _Claim) -> None:
        with suppress(FileNotFoundError):
            self.place.delete_file(claim.file)

    def _ignore(self, names: list[str]) -> None:
        self.strangers.update(names)
        if names:
            listed = ", ".join(map(repr, sorted(names)))
            tell(f"{self.place}: ignored {listed}, not written by a lease.")


def _take(queue: _Queue, own: _Claim, name: str) -> None:
    """Returns when it is this command's turn and, where the store can say so, nobody else's."""
    holder, file = "", conditional(queue.place, HOLDER)
    while holder != own.file:
        _wait(queue, own, name, holder)
        holder = own.file if file is None else _holder(file, queue, own)
        if holder != own.file:
            time.sleep(LOOKED_EVERY_S)


def _holder(file: Conditional, queue: _Queue, own: _Claim) -> str:
    """The file of the claim that holds the lease, after `own` has tried; empty if others changed it meanwhile."""
    holder, seen = file.read()
    if holder and (holder == own.file or queue.place.has(holder)):
        return holder
    return own.file if file.write(own.file, seen) else ""


def _wait(queue: _Queue, own: _Claim, name: str, holder: str) -> None:
    """Returns when no living claim comes before `own`. holder: the file of a claim that does, whatever its number."""
    seen: dict[_Claim, float] = {}  # when a claim was first seen in its present state
    told = None
    while before := [claim for claim in queue.claims() if claim[:2] < own[:2] or claim.file == holder]:
        now = time.monotonic()
        seen = {claim: seen.get(claim, now) for claim in before}
        first = before[0]
        owner = queue.owner(first)
        if owner is None:
            continue
        if now - seen[first] > DEAD_AFTER_S or owner.is_gone():
            queue.remove(first)
            continue
        if first.process != told:
            told = first.process
            who = f"process {owner.pid} on {owner.host}, there since {owner.since}"
            tell(f"waiting for {name}: {who}.")
        time.sleep(LOOKED_EVERY_S)


def _renew(queue: _Queue, own: _Claim, owner: _Owner, done: threading.Event) -> None:
    while not done.wait(RENEWED_EVERY_S):
        with suppress(OSError):  # an object store may fail for a moment; the next time is soon enough
            if not queue.place.has(own.file):
                logger.warning("This process was taken for dead, and another continues its work.")
                ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in a shell's background job
                os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)
                return
            queue.write(own, owner)
