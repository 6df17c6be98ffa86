"""How many rows a pipeline may have read and not finished.

Rows that were read lie in the object store. Reading ahead helps while models are loaded; without a bound it would fill the
store, and Ray would write rows to disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 0.25
"""Part of the cluster's object stores that the rows of one pipeline may take."""


class ReadAhead:
    """Lets rows of any number of threads begin. The largest row seen so far stands for those whose size is not known yet."""

    def __init__(self, capacity: float, at_least: int) -> None:
        """capacity: bytes of the object stores. at_least: rows that may be at work whatever their size."""
        self.at_work, self.largest = 0, 0
        self.changed = threading.Condition()
        self.make_room(capacity, at_least)

    def make_room(self, capacity: float, at_least: int) -> None:
        """Takes new values of the constructor's."""
        with self.changed:
            self.bytes, self.at_least = SHARE * capacity, at_least
            self.changed.notify_all()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Waits until a row may begin. It ends with the context."""
        with self.changed:
            self.changed.wait_for(self._has_room)
            self.at_work += 1
        try:
            yield
        finally:
            with self.changed:
                self.at_work -= 1
                self.changed.notify()

    def read(self, size: int) -> None:
        """A row was read, of `size` bytes, 0 for a few."""
        with self.changed:
            self.largest = max(self.largest, size, 1)
            self.changed.notify_all()

    def _has_room(self) -> bool:
        has_room = self.largest > 0 and (self.at_work + 1) * self.largest <= self.bytes
        return self.at_work < self.at_least or has_room
