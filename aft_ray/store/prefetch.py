"""Work in threads, a little ahead of who takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")


def prefetched(make: Callable[[A], T], items: Sequence[A], *, threads: int = 1) -> Iterator[T]:
    """`make` of every item, in order; `threads` make the next ones, two each, while one is used."""
    depth = 2 * threads
    with ThreadPoolExecutor(threads) as pool:
        pending = deque(pool.submit(make, item) for item in items[:depth])
        try:
            for number in range(len(items)):
                ready = pending.popleft().result()
                if number + depth < len(items):
                    pending.append(pool.submit(make, items[number + depth]))
                yield ready
        finally:
            pool.shutdown(cancel_futures=True)
