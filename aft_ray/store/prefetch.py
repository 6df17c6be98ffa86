"""Work in threads, a little ahead of who takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")


def prefetched(make: Callable[[A], T], items: Sequence[A], *, threads: int = 1) -> Iterator[T]:
    """`make` of every item, in order; `threads` make the next ones, two each, while one is used."""
    with closing(attempted(make, items, threads=threads)) as results:
        for result in results:
            yield result()


def attempted(make: Callable[[A], T], items: Sequence[A], *, threads: int) -> Generator[Callable[[], T], None, None]:
    """The same for work that may fail: for each item a function that returns the result, or raises the error of `make`.

    Without threads the function does the work itself.
    """
    if not threads:
        yield from (partial(make, item) for item in items)
        return
    depth = 2 * threads
    with ThreadPoolExecutor(threads) as pool:
        pending = deque(pool.submit(make, item) for item in items[:depth])
        try:
            for number in range(len(items)):
                ready = pending.popleft()
                wait([ready])
                if number + depth < len(items):
                    pending.append(pool.submit(make, items[number + depth]))
                yield ready.result
        finally:
            pool.shutdown(cancel_futures=True)
