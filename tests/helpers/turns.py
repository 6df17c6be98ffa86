"""Two commands that want one lease, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from aft_ray.cluster.lease import lease
from aft_ray.store.workspace import Workspace

Turn = AbstractContextManager[None]


def left_before(first: Turn, second: Callable[[], Turn], *, stays_s: float = 0.5) -> bool:
    """Whether the first had left before the second, which came later, was inside."""
    order = []

    def come() -> None:
        with second():
            order.append("second")

    with first:
        thread = threading.Thread(target=come)
        thread.start()
        thread.join(stays_s)
        order.append("first")
    thread.join()
    return order == ["first", "second"]


def assert_the_second_waits(place: Workspace, before_second: Callable[[], None] = lambda: None) -> None:
    """The second command is inside only after the first has left."""

    def second() -> Turn:
        before_second()
        return lease(place, "runs/main")

    assert left_before(lease(place, "runs/main"), second)
