"""Runs Ray Data pipelines, each in a separate process, with settings and error handling common to all."""

from __future__ import annotations

import itertools
import logging
import math
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aft_ray.cluster.attempts import Attempts, AttemptsHere
from aft_ray.cluster.causes import KNOWN, known_cause
from aft_ray.cluster.crew import Stage, crew_of
from aft_ray.cluster.gang import ActorPool, Gang, GangLost, gang
from aft_ray.cluster.growth import Growth, growth
from aft_ray.cluster.relay import RESULT, Note, relayed
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.printable import tell
from aft_ray.recipe.sections import ResourcesConfig

Item = TypeVar("Item")

LOST_AFTER_S = 15.0
"""Seconds that actors may lack a node before their pipeline is rebuilt on the remaining nodes."""

SENT_EVERY_S = 0.5
"""Least seconds between two messages to the driver about finished rows."""

ASKED_FOR_S = 5.0
"""Longest wait for the shares of shards at work."""


def run_pipeline(
    stages: Sequence[Stage],
    pools: Sequence[ActorPool],
    resources: ResourcesConfig,
    items: Iterable[Item],
    take: Callable[[Any], None],
) -> None:
    """Leads items through all stages and passes what the last returns to `take`; if nodes are lost, begins again on the others.

    stages: the one that reads, and one for each of `pools`. items: the work left, small values; a view that shrinks as `take`
    is called. An autoscaler may replace lost nodes within `resources.wait_s`, or LOST_AFTER_S.
    Raises InputError and OSError of a stage as they were raised there, and ClusterError if Ray gives up lost work.
    """
    while left := list(items):
        with (
            gang(pools, resources.decode_cpus) as begun,
            growth(pools, begun.share, resources.decode_cpus, len(left)) as growing,
            beside_driver(Conductor) as conductor,
        ):
            lists = conductor.run.remote(left, stages, begun, growing, max(LOST_AFTER_S, resources.wait_s))
            failure = _failure(lists, take)
        if failure is None:
            return
        if not isinstance(failure, GangLost):
            raise failure
        print(f"aft-ray: {failure}: starting again with the remaining work.", file=sys.stderr)


class Conductor:
    """Runs one pipeline, in a process that ends with it and so frees the KiB that Ray keeps for every row: in the driver they
    would add up. Only this process imports Ray Data."""

    def run(
        self, items: list[Item], stages: Sequence[Stage], begun: Gang, growing: Growth, patience_s: float
    ) -> Iterator[list[Any]]:
        """Yields the results, and Notes, in lists: Ray keeps a note of every yielded value at the driver too."""
        crew = crew_of(stages, begun, growing, len(items))  # before Ray Data is imported: models load meanwhile
        _set_context()
        done: list[Any] = []
        failure, sent = None, -math.inf
        try:
            for row in relayed(items, crew, begun, patience_s).iter_rows():
                result, notes = pickle.loads(row[RESULT])
                done += notes
                if isinstance(result, Exception):
                    raise result
                done.append(result)
                if time.monotonic() > sent + SENT_EVERY_S:
                    yield done
                    done, sent = [], time.monotonic()
        except Exception as error:
            failure = known_cause(error)
        yield done
        if failure:
            raise failure


def _set_context() -> None:
    """Configures Ray Data in this process."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # our own bars count shards, not blocks
    context.target_max_block_size = 1  # a row leaves its task as soon as it is made
    context.execution_no_progress_timeout_s = -1  # Ray Data learns of a row only when all stages are done with it
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error is raised, once


def _failure(lists: ray.ObjectRefGenerator, take: Callable[[Any], None]) -> Exception | None:
    """Passes all rows to `take` and shows the Notes among them. Returns the error that ended the pipeline, if it is one of KNOWN,
    as its task raised it."""
    taken = 0
    try:
        for row in itertools.chain.from_iterable(map(ray.get, lists)):
            if isinstance(row, Note):
                tell(row)
                continue
            take(row)
            taken += 1
    except (InputError, ray.exceptions.RayTaskError) as error:
        cause = known_cause(error)
        if not isinstance(cause, KNOWN):
            raise
        return cause
    except ray.exceptions.RayActorError as error:
        if not taken:
            return known_cause(error)  # the next attempt would end like this one
        return GangLost("the process that ran the pipeline ended")
    return None


class _AttemptsElsewhere:
    """`Attempts` in another process."""

    def __init__(self, actor: ray.actor.ActorHandle) -> None:
        self.actor = actor

    def begin(self, shard: str) -> tuple[int, list[int]]:
        begun: tuple[int, list[int]] = ray.get(self.actor.begin.remote(shard))
        return begun

    def alone(self, shard: str, row: int | None) -> None:
        ray.get(self.actor.alone.remote(shard, row))  # recorded before the row can crash this process

    def part(self, shard: str, share: float) -> None:
        self.actor.part.remote(shard, share)

    def parts(self) -> float:
        try:
            share: float = ray.get(self.actor.parts.remote(), timeout=ASKED_FOR_S)
        except ray.exceptions.RayError:  # it only shows progress
            return 0.0
        return share

    def done(self, shard: str) -> None:
        self.actor.done.remote(shard)


@contextmanager
def attempts_elsewhere() -> Iterator[Attempts]:
    """`Attempts` in a process that lives as long as the context, even if nodes are lost."""
    with beside_driver(AttemptsHere, max_restarts=-1, max_task_retries=-1) as actor:
        yield _AttemptsElsewhere(actor)


@contextmanager
def beside_driver(kind: type, **options: Any) -> Iterator[Any]:
    """An actor on the driver's machine, which takes no CPU and ends with the context."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(kind).options(num_cpus=0, scheduling_strategy=here, **options).remote()
    try:
        yield actor
    finally:
        ray.kill(actor)
