"""The actors of a pipeline: a pool for each stage, in the places of a gang."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from aft_ray.cluster.gang import Gang
from aft_ray.cluster.quick_exit import exit_quickly


@dataclass(frozen=True)
class Stage:
    """What the actors of one stage do.

    make: a class or function that an actor calls with `args`. What it returns is called with the output of the stage before.
    calls: the number of rows that an actor works on at the same time, in threads.
    """

    make: Callable[..., Callable[[Any], Any]]
    args: tuple[Any, ...]
    calls: int = 1


@dataclass(frozen=True)
class Pool:
    """The actors of one stage. nodes: of each. slots_each: rows that one has at the same time; one of them travels to it."""

    actors: Sequence[ray.actor.ActorHandle]
    nodes: Sequence[str]
    slots_each: int

    @property
    def num_slots(self) -> int:
        return self.slots_each * len(self.actors)


def crew_of(stages: Sequence[Stage], gang: Gang, num_items: int) -> list[Pool]:
    """Starts the actors, at most `num_items` for each stage. They end with this process, or the gang."""
    return [_pool(stage, gang, number, num_items) for number, stage in enumerate(stages)]


def _pool(stage: Stage, gang: Gang, number: int, num_items: int) -> Pool:
    places = gang.places(number)[:num_items]
    kind: Any = ray.remote(type(stage.make.__name__, (Worker,), {}))  # the name is the title of its processes
    common = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": stage.calls}
    actors = [kind.options(**common, **place.options).remote(stage) for place in places]
    return Pool(actors, [place.node for place in places], stage.calls + 1)


class Worker:
    """An actor of a stage. An error of its constructor is raised by its first call: Ray would report only a dead actor."""

    def __init__(self, stage: Stage) -> None:
        exit_quickly()
        self.fault: Exception | None = None
        try:
            self.work = stage.make(*stage.args)
        except Exception as error:
            self.fault = error

    def __call__(self, row: Any) -> Any:
        if self.fault is not None:
            raise self.fault
        return self.work(row)
