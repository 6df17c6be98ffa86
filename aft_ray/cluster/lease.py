"""A lease: only one command at a time writes a given part of a workspace; others wait and find the work done.

pyarrow can neither rename a file of an object store nor create one exclusively, so this is Lamport's bakery algorithm
(doi 10.1145/361082.361093) with whole files. A command writes a claim, draws a number above all others, then waits until
no living claim has a lower number.

The bakery trusts the store's listings. Where the store has conditional writes, a command whose turn has come also writes
its claim's name into HOLDER, which succeeds only for one: others wait while the claim that HOLDER names exists. Commands
without obstore or of earlier versions do not look at HOLDER, and keep their turns by the claims, which all have.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from aft_ray.cluster import claims
from aft_ray.cluster.claims import Claim, Claims, Owner
from aft_ray.cluster.conditional import Conditional, conditional
from aft_ray.store.files import Directory

DRAWING = 0
"""The number of a claim until it has drawn one."""
HOLDER = ".holder"
"""Earlier versions pass over a name that begins with a dot."""


@contextmanager
def lease(workspace: Directory, name: str, *, sweeps: bool = True) -> Iterator[None]:
    """`with lease(workspace, "runs/main"):` only one process at a time is inside. Waits for its turn and says for whom.

    sweeps: delete what killed commands left in this part; false for short work in a part that may have millions of files.
    A process that stood still for a minute may have been taken for dead; it is then interrupted, as by Ctrl-C.
    """
    queue, owner = Claims(workspace / "leases" / name), Owner.this_process()
    drawing = Claim(DRAWING, uuid.uuid4().hex)
    queue.write(drawing, owner)
    try:
        own = Claim(1 + max((claim.number for claim in queue.all()), default=0), drawing.process)
        queue.write(own, owner)
    finally:
        queue.remove(drawing)
    with queue.held(own, owner):
        _take(queue, own, name)
        if sweeps:
            _sweep(workspace, queue.place, workspace / name)
        yield


def _sweep(workspace: Directory, queue: Directory, part: Directory) -> None:
    """Deletes the temporary files of killed commands: in the part that is now this command's, and beside it."""
    workspace.delete_left_overs()
    queue.delete_left_overs()
    part.delete_left_overs(below=True)


def _take(queue: Claims, own: Claim, name: str) -> None:
    """Returns when it is this command's turn and, where the store can say so, nobody else's."""
    holder, file = "", conditional(queue.place, HOLDER)

    def is_before(claim: Claim) -> bool:
        return claim[:2] < own[:2] or claim.file == holder

    while holder != own.file:
        queue.wait(is_before, name)
        holder = own.file if file is None else _holder(file, queue, own)
        if holder != own.file:
            time.sleep(claims.LOOKED_EVERY_S)


def _holder(file: Conditional, queue: Claims, own: Claim) -> str:
    """The file of the claim that holds the lease, after `own` has tried; empty if others changed it meanwhile."""
    holder, seen = file.read()
    if holder and (holder == own.file or queue.place.has(holder)):
        return holder
    return own.file if file.write(own.file, seen) else ""
