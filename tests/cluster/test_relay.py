"""How rows are led to actors; the drills of extraction show it with real ones."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from aft_ray.cluster.crew import Stage, Worker
from aft_ray.cluster.gang import GangLost, LossWatch


def divide(number: int) -> Any:
    return (1 // number).__add__


def test_what_goes_wrong_in_a_constructor_is_raised_at_the_first_call() -> None:
    assert Worker(Stage(divide, (1,)))(2) == 3
    broken = Worker(Stage(divide, (0,)))
    with pytest.raises(ZeroDivisionError):
        broken(2)


def test_only_a_gang_that_stays_incomplete_is_lost() -> None:
    class Torn:
        whole = False

        def is_whole(self) -> bool:
            return self.whole

    gang: Any = Torn()
    watch = LossWatch(gang, patience_s=0.05)

    def look_after(seconds: float) -> None:
        threading.Event().wait(seconds)
        watch.look_at = 0.0  # as if LOOKED_EVERY_S had passed
        watch.look()

    look_after(0)
    gang.whole = True
    look_after(0.1)
    gang.whole = False
    look_after(0)
    with pytest.raises(GangLost, match="nodes are gone and were not replaced"):
        look_after(0.1)
