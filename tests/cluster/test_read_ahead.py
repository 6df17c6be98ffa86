"""How far a pipeline reads ahead."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from aft_ray.cluster.read_ahead import SHARE, ReadAhead

pytestmark = pytest.mark.slow


def most_at_once(ahead: ReadAhead, tried: int) -> int:
    """How many of `tried` rows begin before one of them ends."""
    begun, end = threading.Semaphore(0), threading.Event()

    def work() -> None:
        with ahead.one():
            begun.release()
            end.wait()

    threads = [threading.Thread(target=work) for _ in range(tried)]
    for thread in threads:
        thread.start()
    count = 0
    while begun.acquire(timeout=0.3):
        count += 1
    end.set()
    for thread in threads:
        thread.join()
    assert ahead.at_work == 0
    return count


@pytest.mark.parametrize(("size", "expected"), [(None, 2), (0, 9), (10, 5), (40, 2)])
def test_rows_begin_as_their_size_allows_and_enough_of_them_always(size: int | None, expected: int) -> None:
    ahead = ReadAhead(capacity=50 / SHARE, at_least=2)
    if size is not None:
        ahead.read(size)
    assert most_at_once(ahead, 9) == expected


def test_the_largest_row_counts() -> None:
    ahead = ReadAhead(capacity=50 / SHARE, at_least=1)
    for size in (5, 25, 5):
        ahead.read(size)
    assert most_at_once(ahead, 4) == 2


def test_a_row_that_fails_makes_room_and_rows_that_wait_begin_once_a_size_is_known() -> None:
    ahead = ReadAhead(capacity=50 / SHARE, at_least=1)
    with pytest.raises(ZeroDivisionError), ahead.one():
        raise ZeroDivisionError
    with ExitStack() as rows:
        rows.enter_context(ahead.one())
        begun = threading.Event()

        def second() -> None:
            with ahead.one():
                begun.set()

        thread = threading.Thread(target=second)
        thread.start()
        assert not begun.wait(0.2)
        ahead.read(10)
        assert begun.wait(5)
        thread.join()
