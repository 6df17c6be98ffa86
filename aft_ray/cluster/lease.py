"""Turns: of several commands that would write the same part of a workspace, one does; the next waits and finds it done.

An object store can neither rename a file nor create it only where there is none, so this is Lamport's bakery
(doi 10.1145/361082.361093) with whole files. Who comes writes a claim, then draws a number above those of all others, then
waits until no claim has a lower one. A claim is written again while its process lives. One that was not for a minute of
the waiter's own clock, or whose process is known to be gone, is dead, and whoever waits for it removes it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from aft_ray.store.files import Directory

RENEWED_EVERY_S, DEAD_AFTER_S, LOOKED_EVERY_S = 5.0, 60.0, 1.0
DRAWING = 0

logger = logging.getLogger(__name__)


class _Claim(NamedTuple):
    """A file in the directory of a lease; in the order of their turns. number: DRAWING before it has one.

    The file always holds the same: of which process it is. That it was written again shows in the time on it.
    """

    number: int
    process: str
    written_ns: int = 0

    @property
    def file(self) -> str:
        return f"{self.number:09d}-{self.process}"


@contextmanager
def lease(workspace: Directory, name: str) -> Iterator[None]:
    """`with lease(workspace, "runs/main"):` nobody else is inside for the same name. Waits for its turn, saying for whom.

    A process that stood still for a minute may find that it was taken for dead; it is interrupted then, as by Ctrl-C.
    """
    place, owner, done = workspace / "leases" / name, _owner(), threading.Event()
    drawing = own = _Claim(DRAWING, uuid.uuid4().hex)
    place.write(drawing.file, owner)
    try:
        own = _Claim(1 + max((claim.number for claim in _claims(place)), default=0), drawing.process)
        place.write(own.file, owner)
    finally:
        _remove(place, drawing)
    renewer = threading.Thread(target=_renew, args=(place, own, owner, done), daemon=True)
    renewer.start()
    try:
        _wait(place, own, name)
        yield
    finally:
        done.set()
        renewer.join()
        _remove(place, own)


def _owner() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return json.dumps(
        {"host": socket.gethostname(), "pid": os.getpid(), "processes": _processes(), "since": since}
    ).encode()


def _processes() -> str | None:
    """Names a table of processes: the boot of a machine, a container on it. Host names may be the same on several."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return None


def _claims(place: Directory) -> list[_Claim]:
    found = []
    for info in place.filesystem.get_file_info(pafs.FileSelector(place.path, allow_not_found=True)):
        if not info.base_name.startswith("."):
            number, _, process = info.base_name.partition("-")
            found.append(_Claim(int(number), process, info.mtime_ns))
    return sorted(found)


def _wait(place: Directory, own: _Claim, name: str) -> None:
    """Returns when no living claim comes before `own`."""
    seen: dict[_Claim, float] = {}  # when a claim was first as it is
    told = None
    while before := [claim for claim in _claims(place) if claim[:2] < own[:2]]:
        now = time.monotonic()
        seen = {claim: seen.get(claim, now) for claim in before}
        first = before[0]
        owner = _read(place, first)
        if owner is None:
            continue
        if now - seen[first] > DEAD_AFTER_S or _is_gone(owner):
            _remove(place, first)
            continue
        if first.process != told:
            told = first.process
            who = f"process {owner['pid']} on {owner['host']}, there since {owner['since']}"
            print(f"aft-ray: waiting for {name}: {who}.", file=sys.stderr, flush=True)
        time.sleep(LOOKED_EVERY_S)


def _read(place: Directory, claim: _Claim) -> dict[str, Any] | None:
    """Whose claim it is; None if its turn ended just now."""
    try:
        return json.loads(place.read(claim.file))
    except OSError:
        if place.has(claim.file):
            raise
        return None


def _is_gone(owner: dict[str, Any]) -> bool:
    """False where it cannot be known from here."""
    if owner["processes"] is None or owner["processes"] != _processes():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _renew(place: Directory, own: _Claim, owner: bytes, done: threading.Event) -> None:
    while not done.wait(RENEWED_EVERY_S):
        with suppress(OSError):  # of an object store for a moment; the next time is soon enough
            if not place.has(own.file):
                logger.warning("This process was taken for dead and another goes on with its work.")
                ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in a shell's background job
                os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)
                return
            place.write(own.file, owner)


def _remove(place: Directory, claim: _Claim) -> None:
    with suppress(FileNotFoundError):
        place.filesystem.delete_file(f"{place}/{claim.file}")
