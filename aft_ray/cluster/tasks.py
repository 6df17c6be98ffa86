"""Functions run in tasks of a cluster, a CPU each; a task whose process or node is lost runs again elsewhere.

This module imports Ray only when a task starts: small work needs none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
AHEAD = 2
"""Tasks for each CPU that are asked for before their results are taken."""


class Tasks(Protocol):
    """`function` of each tuple of arguments, in order.

    Raises InputError and OSError as the function raised them, and ClusterError if Ray gives up a task.
    """

    def __call__(self, function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]) -> Iterator[T]: ...


@dataclass(frozen=True)
class Helpers:
    """Tasks that take over from this process where there are at least `least` samples."""

    tasks: Tasks
    least: int = 250_000

    def of(self, count: int) -> Tasks | None:
        """The tasks, if they are worth their start for so many samples."""
        return self.tasks if count >= self.least else None


def in_tasks(
    function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], reading: Sequence[str] = ()
) -> Iterator[T]:
    """As Tasks, on the cluster that this process is connected to. Few results wait in the cluster's memory.

    reading: paths that every node must see, or InputError is raised.
    """
    import ray

    from aft_ray.cluster.causes import known_cause
    from aft_ray.cluster.preflight import check_sees

    remote = ray.remote(num_cpus=1)(_called)
    window = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    left, pending = iter(arguments), deque[Any]()
    try:
        check_sees(reading)
        kept = ray.put(function)
        while True:
            while len(pending) < window and (given := next(left, None)) is not None:
                pending.append(remote.remote(kept, *given))
            if not pending:
                return
            yield ray.get(pending.popleft())
    except ray.exceptions.RayError as error:
        raise known_cause(error) from None
    finally:
        for reference in pending:
            ray.cancel(reference)


def _called(function: Callable[..., T], *given: Any) -> T:
    return function(*given)
