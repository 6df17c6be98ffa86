"""Which actor of a stage gets a row."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from aft_ray.cluster.slots import Slots


def test_a_row_goes_to_the_least_busy_actor_and_stays_on_its_node_where_there_is_a_choice() -> None:
    slots = Slots(["a", "b", "b"], each=2)
    with ExitStack() as rows:
        taken = [rows.enter_context(slots.one(near)) for near in ("b", "b", "b", "a", "", "c")]
        assert taken == [(1, "b"), (2, "b"), (0, "a"), (0, "a"), (1, "b"), (2, "b")] and not any(slots.free)
    assert slots.free == [2, 2, 2] and slots.num_joined == 6


def test_a_row_waits_for_a_slot_and_one_that_fails_gives_its_slot_back() -> None:
    slots, waited = Slots(["a"], each=1), threading.Event()

    def wait() -> None:
        with slots.one("a"):
            waited.set()

    with pytest.raises(ZeroDivisionError), slots.one("a"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not waited.wait(0.2)
        raise ZeroDivisionError
    assert waited.wait(5)
    thread.join()
    assert slots.free == [1]


def test_an_actor_gets_rows_from_when_it_joins_until_it_leaves() -> None:
    slots, taken = Slots(["a", None], each=1), []
    assert slots.num_joined == 1

    def wait() -> None:
        with slots.one("") as place:
            taken.append(place)

    with slots.one("") as first:
        assert first == (0, "a")
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        slots.join(1, "b")
        thread.join(5)
        assert taken == [(1, "b")] and slots.num_joined == 2
        slots.leave(1)
    assert [place for _ in range(3) for place in one_after_the_other(slots)] == [(0, "a")] * 3
    slots.join(1, "c")
    with slots.one("c") as last:
        assert last == (1, "c")


def one_after_the_other(slots: Slots) -> list[tuple[int, str]]:
    with slots.one("") as place:
        return [place]
