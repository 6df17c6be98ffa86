"""The actors of a pipeline: a pool for each stage, in the places of a gang and, for those that join later, of its growth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from aft_ray.cluster.gang import Gang, Place
from aft_ray.cluster.growth import Growth
from aft_ray.cluster.node_check import node_name
from aft_ray.cluster.quick_exit import exit_quickly
from aft_ray.recipe.errors import InputError, in_a_line


@dataclass(frozen=True)
class Stage:
    """What the actors of one stage do.

    make: a class or function that an actor calls with `args`. What it returns is called with the output of the stage before.
    calls: the number of rows that an actor works on at the same time, in threads.
    check: called first, on the actor's node; raises InputError where it must not work.
    """

    make: Callable[..., Callable[[Any], Any]]
    args: tuple[Any, ...]
    calls: int = 1
    check: Callable[[], None] | None = None


@dataclass(frozen=True)
class Pool:
    """The actors of one stage. nodes: of each at first, None for one that joins later. slots_each: rows that one has at the same
    time; one of them travels to it."""

    actors: Sequence[ray.actor.ActorHandle]
    nodes: Sequence[str | None]
    slots_each: int

    @property
    def num_slots(self) -> int:
        return self.slots_each * len(self.actors)


def crew_of(stages: Sequence[Stage], gang: Gang, growth: Growth, num_items: int) -> list[Pool]:
    """Starts the actors, at most `num_items` for each stage. They end with this process, or their reservations."""
    return [
        _pool(stage, [*gang.places(number), *growth.places(number)][:num_items]) for number, stage in enumerate(stages)
    ]


def _pool(stage: Stage, places: Sequence[Place]) -> Pool:
    kind: Any = ray.remote(type(stage.make.__name__, (Worker,), {}))  # the name is the title of its processes
    actors = []
    for place in places:
        # A call to one that joined fails with its node, and its row begins anew elsewhere: the node may never be replaced.
        retries = 0 if place.node is None else -1
        options = {"max_restarts": -1, "max_task_retries": retries, "max_concurrency": stage.calls, **place.options}
        actors.append(kind.options(**options).remote(stage))
    return Pool(actors, [place.node for place in places], stage.calls + 1)


class Worker:
    """An actor of a stage. An error of its constructor is raised by its first call: Ray would report only a dead actor."""

    def __init__(self, stage: Stage) -> None:
        exit_quickly()
        self.fault: Exception | None = None
        try:
            if stage.check:
                stage.check()
            self.work = stage.make(*stage.args)
        except Exception as error:
            self.fault = error

    def __call__(self, row: Any) -> Any:
        if self.fault is not None:
            raise self.fault
        return self.work(row)

    def begun(self) -> tuple[str, str]:
        """The id of the node that it is on, once its constructor is done, and the error of that in a line, or ''."""
        node: str = ray.get_runtime_context().get_node_id()
        if self.fault is None:
            return node, ""
        name, line = node_name(ray.util.get_node_ip_address(), node), in_a_line(self.fault)
        kind = "" if isinstance(self.fault, InputError) else f"{type(self.fault).__name__}: "
        return node, line if line.startswith(name) else f"{name}: {kind}{line}"
