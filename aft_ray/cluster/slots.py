"""What a stage's actors have to do: which of them is the least busy, and which are there at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Slots:
    """The rows that the threads of a relay have given to a stage's actors."""

    def __init__(self, nodes: Sequence[str | None], each: int) -> None:
        """nodes: of each actor; None for one that has not joined yet. each: rows that one has at most."""
        self.nodes, self.each, self.free = [*nodes], each, [each] * len(nodes)
        self.changed = threading.Condition()

    @property
    def num_joined(self) -> int:
        """Rows that all actors that are there may have."""
        return self.each * sum(node is not None for node in self.nodes)

    @contextmanager
    def one(self, near: str) -> Iterator[tuple[int, str]]:
        """Waits for the least busy actor, if there is a choice one on the node `near`. Gives its number and its node."""
        with self.changed:
            self.changed.wait_for(self._choices)
            number, node = max(self._choices(), key=lambda choice: (self.free[choice[0]], choice[1] == near))
            self.free[number] -= 1
        try:
            yield number, node
        finally:
            with self.changed:
                self.free[number] += 1
                self.changed.notify()

    def join(self, number: int, node: str) -> None:
        """The actor is there, on `node`."""
        with self.changed:
            self.nodes[number] = node
            self.changed.notify_all()

    def leave(self, number: int) -> None:
        """The actor gets no more rows until it joins again."""
        with self.changed:
            self.nodes[number] = None

    def _choices(self) -> list[tuple[int, str]]:
        return [(number, node) for number, node in enumerate(self.nodes) if node is not None and self.free[number]]
