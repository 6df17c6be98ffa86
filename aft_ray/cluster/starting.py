"""A cluster that starts with the first work that needs it: a command whose work is done starts none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache

Cluster = Callable[[], AbstractContextManager[None]]
"""Starts or joins a cluster, for the context."""


@contextmanager
def start_once(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """A function that starts the cluster when it is first called; the cluster ends with the context."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(cluster()))
