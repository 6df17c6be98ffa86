"""How every Ray Data pipeline of this package is run: in a process of its own, its settings, and what becomes of its errors."""

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
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import ResourcesConfig

if TYPE_CHECKING:
    from ray.data import Dataset

PipelineRow = dict[str, Any]
Item = TypeVar("Item")

LOST_AFTER_S = 15.0
"""How long actors may have no place before their pipeline begins again on the nodes that there are."""

SENT_EVERY_S = 0.5
"""How often the driver hears of what was made, at most."""

KNOWN = (InputError, OSError, GangLost)
"""What the caller can do something about, wherever it was raised."""


def run_pipeline(
    pools: Sequence[ActorPool],
    resources: ResourcesConfig,
    items: Iterable[Item],
    build: Callable[[list[Item], Gang], Dataset],
    take: Callable[[PipelineRow], None],
) -> None:
    """Runs a pipeline, whose rows may be large inside, and hands what comes out to `take`. When nodes are gone for good, it is
    built again for those that there are, with the items that are then left.

    pools: of its stages after reading. items: what is left to do, small; a view of something that `take` makes smaller.
    build: makes the pipeline, in another process, for a gang that has room for the pools. Lost nodes may be replaced within
    `resources.wait_s`, or LOST_AFTER_S.
    Raises InputError and OSError of a task as they were raised there.
    """
    while left := list(items):
        with gang(pools, resources.decode_cpus) as place, beside_driver(Conductor) as conductor:
            lists = conductor.run.remote(left, build, place, max(LOST_AFTER_S, resources.wait_s))
            failure = _failure(lists, take)
        if failure is None:
            return
        if not isinstance(failure, GangLost):
            raise failure
        print(f"aft-ray: {failure}: beginning again with what is left.", file=sys.stderr)


class Conductor:
    """Runs one pipeline. Its process ends with it, and with that goes what Ray has noted of every row: some KiB, which would
    add up in the driver's. Ray Data is imported in this process alone."""

    def run(
        self, items: list[Item], build: Callable[[list[Item], Gang], Dataset], place: Gang, patience_s: float
    ) -> Iterator[list[PipelineRow]]:
        """What comes out, in lists: of each Ray notes something at the driver too."""
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
            failure = _cause(error)
        yield done
        if failure:
            raise failure


def _set_context(place: Gang, patience_s: float) -> None:
    """How Ray Data runs pipelines in this process."""
    import ray.data
    from ray.util.annotations import RayDeprecationWarning

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours count what the user counts, not blocks
    context.raise_original_map_exception = True
    context.target_max_block_size = 1  # a row leaves its task as soon as it is made
    context.custom_execution_callback_classes = [partial(Watchman, place, patience_s)]
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, once
    # Ray warns of `ray_remote_args_fn`, without which one actor cannot be told from another: see pyproject.toml.
    warnings.simplefilter("ignore", RayDeprecationWarning)


def _failure(lists: ray.ObjectRefGenerator, take: Callable[[PipelineRow], None]) -> Exception | None:
    """Hands over all rows. Returns, as it was raised where it was raised, what the caller can do something about."""
    taken = 0
    try:
        for row in itertools.chain.from_iterable(map(ray.get, lists)):
            take(row)
            taken += 1
    except (InputError, ray.exceptions.RayTaskError) as error:
        cause = _cause(error)
        if not isinstance(cause, KNOWN):
            raise
        return cause
    except ray.exceptions.RayActorError:
        if not taken:
            raise  # the next attempt would end like this one
        return GangLost("the process that ran the pipeline ended")
    return None


def _cause(error: Exception) -> Exception:
    """What the caller can do something about if it was raised in another process, else the error itself."""
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
        ray.get(self.actor.alone.remote(shard, row))  # known before the row can end this process

    def done(self, shard: str) -> None:
        self.actor.done.remote(shard)


@contextmanager
def attempts_elsewhere() -> Iterator[Attempts]:
    """In a process that lives as long as the context, whatever is lost elsewhere."""
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
