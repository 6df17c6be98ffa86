"""Two commands that want one lease, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from aft_ray.cluster.lease import lease
from aft_ray.store.workspace import Workspace


def assert_the_second_waits(place: Workspace, before_second: Callable[[], None] = lambda: None) -> None:
    """The second command is inside only after the first has left."""
    order = []

    def second() -> None:
        before_second()
        with lease(place, "runs/main"):
            order.append("second")

    with lease(place, "runs/main"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
