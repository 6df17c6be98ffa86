"""How every Ray Data pipeline of this package is run: its settings, and what becomes of its errors."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aft_ray.attempts import Attempts, AttemptsHere
from aft_ray.config import InputError


def run_pipeline(consume: Callable[[], None]) -> None:
    """Calls `consume`, which builds a pipeline whose rows are large and takes them all.

    Raises InputError and OSError of a task as they were raised there.
    """
    faults: list[str] = []
    with _settings():
        try:
            consume()
        except InputError as error:
            faults = error.faults
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):
                raise error.cause from None
            if not isinstance(error.cause, InputError):
                raise
            faults = error.cause.faults
    if faults:
        # The failed execution is part of a reference cycle, and its actors keep their CPUs until it is collected.
        gc.collect()
        raise InputError(faults)


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


class ActorPool(Protocol):
    """What a pipeline is asked for one of its stages; a teacher's part of a recipe is one."""

    @property
    def num_actors(self) -> int: ...

    @property
    def num_gpus(self) -> float:
        """Of each actor."""
        ...


def cpus_per_actor(
    pools: Sequence[ActorPool], nodes: Sequence[Mapping[str, float]], decode_cpus: int | None = None
) -> float:
    """CPUs for each actor that has no GPU: what CPU tasks leave of the nodes' CPUs, shared out; a fraction of one on
    small machines. An actor beside a GPU has one.

    Actors keep their CPUs for the whole run; if they took all, no task could run and the pipeline would wait for ever.
    `decode_cpus` are left, or a quarter, and at least one.

    nodes: the resources of each. Raises InputError if they have not the GPUs or CPUs that are asked for.
    """
    gpus_asked = sum(pool.num_gpus * pool.num_actors for pool in pools)
    gpus = sum(node.get("GPU", 0) for node in nodes)
    if gpus_asked > gpus:
        raise InputError(
            f"{gpus_asked:g} GPUs are asked for, the cluster has {gpus:g}. Lower the number of GPUs or actors."
        )
    cpus = sum(node.get("CPU", 0) for node in nodes)
    on_gpu = sum(pool.num_actors for pool in pools if pool.num_gpus)
    on_cpu = max(1, sum(pool.num_actors for pool in pools if not pool.num_gpus))
    if decode_cpus is not None and decode_cpus + on_gpu >= cpus:
        raise InputError(
            f"resources.decode_cpus is {decode_cpus}, and {on_gpu} actors beside GPUs take one CPU each; the cluster has"
            f" {cpus:g} CPUs. Lower it."
        )
    free = cpus - (decode_cpus or max(1.0, cpus / 4)) - on_gpu
    for share in range(int(free / on_cpu), 0, -1):
        if sum(int(node.get("CPU", 0) * free / cpus / share) for node in nodes) >= on_cpu:
            return float(share)  # so many whole actors fit, none across two nodes
    return min(1.0, max(0.1, round(free / on_cpu, 2)))


def nodes_resources() -> list[dict[str, float]]:
    """What each node that is alive has in all."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def _settings() -> Iterator[None]:
    context = ray.data.DataContext.get_current()
    settings = {
        "enable_progress_bars": False,  # ours count what the user counts, not blocks
        "raise_original_map_exception": True,
        "target_max_block_size": 1,  # a row leaves its task as soon as it is made
    }
    before = {name: getattr(context, name) for name in settings}
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, once
    try:
        vars(context).update(settings)
        yield
    finally:
        vars(context).update(before)
