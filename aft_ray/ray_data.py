"""How every Ray Data pipeline of this package is run: its settings, and what becomes of its errors."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aft_ray.attempts import Attempts, AttemptsHere
from aft_ray.config import InputError
from aft_ray.gang import ActorPool, Gang, GangLost, Watchman, gang
from aft_ray.sections import ResourcesConfig

LOST_AFTER_S = 15.0
"""How long actors may have no place before their pipeline begins again on the nodes that there are."""


def run_pipeline(
    pools: Sequence[ActorPool],
    resources: ResourcesConfig,
    build: Callable[[Gang], ray.data.Dataset],
    take: Callable[[dict[str, Any]], None],
) -> None:
    """Builds a pipeline whose rows are large, and hands each to `take`. When nodes are gone for good, it is
    built again for those that there are, without the rows that were taken.

    pools: of its stages after reading; the gang that `build` gets has room for them. Lost nodes may be replaced within
    `resources.wait_s`, or LOST_AFTER_S.
    Raises InputError and OSError of a task as they were raised there.
    """
    failure: Exception | None = GangLost()
    while isinstance(failure, GangLost):
        with gang(pools, resources.decode_cpus) as place, _settings(place, resources.wait_s):
            with warnings.catch_warnings():
                # Ray warns of `ray_remote_args_fn`, without which one actor cannot be told from another: see pyproject.toml.
                warnings.simplefilter("ignore", RayDeprecationWarning)
                pipeline = build(place)
            failure = _failure(pipeline, take)
            del pipeline
            # An execution is part of a reference cycle. Until that is collected the actors of a failed one live, and what Ray
            # has noted of every row of one that went well stays in memory.
            gc.collect()
        if isinstance(failure, GangLost):
            print("aft-ray: nodes are gone, and no others came: beginning again with those left.", file=sys.stderr)
    if failure:
        raise failure


def _failure(pipeline: ray.data.Dataset, take: Callable[[dict[str, Any]], None]) -> Exception | None:
    """Runs a pipeline. Returns, as it was raised where it was raised, what the caller can do something about."""
    try:
        for row in pipeline.iter_rows():
            take(row)
    except (InputError, GangLost) as error:
        return error.with_traceback(None)
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, InputError | OSError):
            raise
        return error.cause.with_traceback(None)
    return None


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
    """In a process on the driver's machine, which lives as long as the context, whatever is lost elsewhere."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
    actor = ray.remote(AttemptsHere).options(**options).remote()
    try:
        yield _AttemptsElsewhere(actor)
    finally:
        ray.kill(actor)


@contextmanager
def _settings(place: Gang, wait_s: float) -> Iterator[None]:
    context = ray.data.DataContext.get_current()
    settings = {
        "enable_progress_bars": False,  # ours count what the user counts, not blocks
        "raise_original_map_exception": True,
        "target_max_block_size": 1,  # a row leaves its task as soon as it is made
        "custom_execution_callback_classes": [partial(Watchman, place, max(LOST_AFTER_S, wait_s))],
    }
    before = {name: getattr(context, name) for name in settings}
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, once
    try:
        vars(context).update(settings)
        yield
    finally:
        vars(context).update(before)
