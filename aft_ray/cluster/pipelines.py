"""Runs Ray Data pipelines, each in a separate process, with settings and error handling common to all."""

from __future__ import annotations

import itertools
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aft_ray.cluster.attempts import Attempts, AttemptsHere
from aft_ray.cluster.gang import ActorPool, Gang, GangLost, Watchman, gang
from aft_ray.recipe.errors import ClusterError, InputError
from aft_ray.recipe.sections import ResourcesConfig

if TYPE_CHECKING:
    from ray.data import Dataset

PipelineRow = dict[str, Any]
Item = TypeVar("Item")

LOST_AFTER_S = 15.0
"""Seconds that actors may lack a node before their pipeline is rebuilt on the remaining nodes."""

SENT_EVERY_S = 0.5
"""Least seconds between two messages to the driver about finished rows."""

ASKED_FOR_S = 5.0
"""Longest wait for the shares of shards at work."""

KNOWN = (InputError, OSError, ClusterError, GangLost)
"""Errors that the caller handles; a task's are raised as they were there."""

LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.RayActorError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.OutOfDiskError,
    ray.exceptions.ObjectStoreFullError,
    ray.exceptions.TaskUnschedulableError,
)
"""Errors of processes, nodes and results that were lost more often than Ray repeats the work, or cannot be repeated."""


def run_pipeline(
    pools: Sequence[ActorPool],
    resources: ResourcesConfig,
    items: Iterable[Item],
    build: Callable[[list[Item], Gang], Dataset],
    take: Callable[[PipelineRow], None],
) -> None:
    """Runs a pipeline and passes each output row to `take`; if nodes are lost, rebuilds it on the remaining nodes.

    pools: the actors of its stages after reading. items: the work left, small values; a view that shrinks as `take` is
    called. build: builds the pipeline in another process, for a gang with room for the pools. An autoscaler may replace
    lost nodes within `resources.wait_s`, or LOST_AFTER_S.
    Raises InputError and OSError of a task as they were raised there, and ClusterError if Ray gives up lost work.
    """
    while left := list(items):
        with gang(pools, resources.decode_cpus) as place, beside_driver(Conductor) as conductor:
            lists = conductor.run.remote(left, build, place, max(LOST_AFTER_S, resources.wait_s))
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
        self, items: list[Item], build: Callable[[list[Item], Gang], Dataset], place: Gang, patience_s: float
    ) -> Iterator[list[PipelineRow]]:
        """Yields the output rows in lists: Ray keeps a note of every yielded value at the driver too."""
        _set_context(place, patience_s)
        done: list[PipelineRow] = []
        failure, sent = None, -math.inf
        try:
            for row in build(items, place).iter_rows():
                done.append(row)
                if time.monotonic() > sent + SENT_EVERY_S:
                    yield done
                    done, sent = [], time.monotonic()
        except Exception as error:
            failure = known_cause(error)
        yield done
        if failure:
            raise failure


def _set_context(place: Gang, patience_s: float) -> None:
    """Configures Ray Data in this process."""
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # our own bars count shards, not blocks
    context.raise_original_map_exception = True
    context.target_max_block_size = 1  # a row leaves its task as soon as it is made
    context.custom_execution_callback_classes = [partial(Watchman, place, patience_s)]
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error is raised, once
    # Ray deprecates `ray_remote_args_fn`, the only way to give each actor a place of its gang: see pyproject.toml.
    warnings.simplefilter("ignore", RayDeprecationWarning)


def _failure(lists: ray.ObjectRefGenerator, take: Callable[[PipelineRow], None]) -> Exception | None:
    """Passes all rows to `take`. Returns the error that ended the pipeline, if it is one of KNOWN, as its task raised it."""
    taken = 0
    try:
        for row in itertools.chain.from_iterable(map(ray.get, lists)):
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


def known_cause(error: Exception) -> Exception:
    """The error of KNOWN that another process raised, a ClusterError for one of LOST, or else the error itself."""
    if isinstance(error, LOST):
        reason = str(error).strip().partition("\n")[0].rstrip(". ")
        return ClusterError(
            f"Ray gave up a part of the work: {reason}. See that the nodes stay up and have memory and disk left, and run the"
            " same command again."
        )
    cause = getattr(error, "cause", None)
    return cause.with_traceback(None) if isinstance(cause, KNOWN) else error


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
