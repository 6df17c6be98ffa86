"""Claims: files in a directory of the workspace, one for each process that works on a part of it or waits to.

A process rewrites its claim while it lives. A claim is dead if it was not rewritten for a minute of the watcher's own clock,
or if its process is known to be gone; a process that waits for it removes it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import pyarrow.fs as pafs
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from aft_ray.recipe.printable import tell
from aft_ray.store.files import Directory

RENEWED_EVERY_S, DEAD_AFTER_S, LOOKED_EVERY_S = 5.0, 60.0, 1.0
CLAIM = re.compile(r"(\d{9,19})-([0-9a-f]{32})")

Printable = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]

logger = logging.getLogger(__name__)


class Claim(NamedTuple):
    """A file in a directory of claims. number: the process's turn, or its part of the work.

    The content names the process and never changes; the file's time shows when the process last rewrote it.
    """

    number: int
    process: str
    written_ns: int = 0

    @property
    def file(self) -> str:
        return f"{self.number:09d}-{self.process}"


class Owner(BaseModel, strict=True, frozen=True):
    """The content of a claim: the process that wrote it. `processes` names the process table in which `pid` counts.

    of: the number of parts that the work is divided into, if the claim is for one of them.
    """

    host: Printable
    pid: int = Field(gt=0, lt=2**31)
    processes: str | None
    since: Printable
    of: int | None = None

    @classmethod
    def this_process(cls, of: int | None = None) -> Owner:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return cls(host=socket.gethostname(), pid=os.getpid(), processes=_processes(), since=since, of=of)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, there since {self.since}"

    @property
    def is_in_sight(self) -> bool:
        """Whether this process can see that one: they share a process table."""
        return self.processes is not None and self.processes == _processes()

    def is_gone(self) -> bool:
        """Whether the process is known to have ended. False if it cannot be seen from this machine."""
        if not self.is_in_sight:
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
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return None


class Claims:
    """The claims in one directory, as this process sees them. Any other file there is left alone and named once."""

    def __init__(self, place: Directory) -> None:
        self.place = place
        self.strangers: set[str] = set()

    def all(self) -> list[Claim]:
        """The claims by number. A name that begins with a dot is none."""
        found, strangers = [], []
        for info in self.place.infos():
            name = info.base_name
            if name in self.strangers or name.startswith("."):
                continue
            if info.type == pafs.FileType.File and (parts := CLAIM.fullmatch(name)):
                found.append(Claim(int(parts[1]), parts[2], info.mtime_ns))
            else:
                strangers.append(name)
        self._ignore(strangers)
        return sorted(found)

    def owner(self, claim: Claim) -> Owner | None:
        """The process of a claim; None if it has just been removed, or if the file is no claim.

        Claims are written whole: a file that cannot be parsed was never one.
        """
        try:
            return Owner.model_validate_json(self.place.read(claim.file))
        except ValidationError:
            self._ignore([claim.file])
        except OSError:
            if self.place.has(claim.file):
                raise
        return None

    def write(self, claim: Claim, owner: Owner) -> None:
        self.place.write(claim.file, owner.model_dump_json().encode())

    def remove(self, claim: Claim) -> None:
        with suppress(FileNotFoundError):
            self.place.delete_file(claim.file)

    @contextmanager
    def held(self, own: Claim, owner: Owner) -> Iterator[None]:
        """Keeps a claim that was written alive for the context, and removes it at the end."""
        done = threading.Event()
        renewer = threading.Thread(target=_renew, args=(self, own, owner, done), daemon=True)
        renewer.start()
        try:
            yield
        finally:
            done.set()
            renewer.join()
            self.remove(own)

    def wait(self, is_before: Callable[[Claim], bool], name: str) -> None:
        """Returns when no living process has such a claim. Prints for whom it waits; `name` is the part of the workspace."""
        seen: dict[Claim, float] = {}  # when a claim was first seen in its present state
        told = None
        while before := [claim for claim in self.all() if is_before(claim)]:
            now = time.monotonic()
            seen = {claim: seen.get(claim, now) for claim in before}
            first = before[0]
            owner = self.owner(first)
            if owner is None:
                continue
            if now - seen[first] > DEAD_AFTER_S or owner.is_gone():
                self.remove(first)
                continue
            if first.process != told and now > seen[first]:  # at the second look: a number is drawn in a moment
                told = first.process
                tell(f"waiting for {name}: {owner}.")
            time.sleep(LOOKED_EVERY_S)

    def living(self, claims: Iterable[Claim]) -> tuple[Claim, Owner] | None:
        """The first of these claims that is seen to live, None if all are gone or dead; those are removed.

        A process on another machine shows it within RENEWED_EVERY_S; that one is dead takes a minute to see.
        """
        watched, since = {claim.file: claim.written_ns for claim in claims}, time.monotonic()
        while found := [claim for claim in self.all() if claim.file in watched]:
            for claim in found:
                owner = self.owner(claim)
                if owner is None:
                    continue
                if owner.is_gone() or time.monotonic() - since > DEAD_AFTER_S:
                    self.remove(claim)
                elif owner.is_in_sight or claim.written_ns != watched[claim.file]:
                    return claim, owner
            time.sleep(LOOKED_EVERY_S)
        return None

    def _ignore(self, names: list[str]) -> None:
        self.strangers.update(names)
        if names:
            listed = ", ".join(map(repr, sorted(names)))
            tell(f"{self.place}: ignored {listed}, not written by a lease.")


def _renew(claims: Claims, own: Claim, owner: Owner, done: threading.Event) -> None:
    while not done.wait(RENEWED_EVERY_S):
        with suppress(OSError):  # an object store may fail for a moment; the next time is soon enough
            if not claims.place.has(own.file):
                logger.warning("This process was taken for dead, and another continues its work.")
                ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in a shell's background job
                os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)
                return
            claims.write(own, owner)
