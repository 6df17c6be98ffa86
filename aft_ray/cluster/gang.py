"""Gang scheduling: a pipeline reserves all its CPUs and GPUs at once, or none.

Actors hold their resources to the end. If two pipelines started their actors one by one, each could hold resources that the
other waits for, with no CPU left for reading. So readers are actors as well, and all actors of a pipeline share one Ray
placement group, which Ray creates as soon as the cluster has room for the whole group.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from aft_ray.cluster.nodes import nodes_resources
from aft_ray.recipe.errors import InputError

TOLD_AFTER_S, LOOKED_EVERY_S = 5.0, 1.0

Bundle = dict[str, float]
"""Resources of one actor or worker."""


class ActorPool(Protocol):
    """The actors of one stage of a pipeline; a teacher's section of a recipe is one."""

    @property
    def min_actors(self) -> int:
        """Actors that the pipeline begins with."""
        ...

    @property
    def max_actors(self) -> int:
        """Most actors, with those that join later."""
        ...

    @property
    def num_gpus(self) -> float:
        """GPUs of each actor."""
        ...


@dataclass(frozen=True)
class Share:
    """A pipeline's share of the cluster.

    readers: number of actors that read. reader_cpus: CPUs of each. actor_cpus: CPUs of an actor without a GPU; an actor
    with a GPU has one CPU.
    """

    readers: int
    reader_cpus: float
    actor_cpus: float

    def of(self, pool: ActorPool) -> Bundle:
        return {"CPU": 1.0, "GPU": pool.num_gpus} if pool.num_gpus else {"CPU": self.actor_cpus}

    def bundles(self, pools: Sequence[ActorPool]) -> list[Bundle]:
        """All that a pipeline begins with: the readers, then the actors of each pool."""
        of_pools = [self.of(pool) for pool in pools for _ in range(pool.min_actors)]
        return [{"CPU": self.reader_cpus}] * self.readers + of_pools


def share_of(pools: Sequence[ActorPool], nodes: Sequence[Mapping[str, float]], decode_cpus: int | None = None) -> Share:
    """Divides CPUs between readers and actors.

    A GPU pipeline reserves CPUs in proportion to its GPUs; any other reserves all. An actor with a GPU takes one CPU.
    `decode_cpus` CPUs are for reading; by default all remaining ones, or a quarter if other actors run on CPUs, which then
    divide the rest. On small machines an actor gets a fraction of a CPU.

    nodes: the resources of each. Raises InputError if the nodes lack the requested GPUs or CPUs.
    """
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    gpus_asked = sum(pool.num_gpus * pool.min_actors for pool in pools)
    if gpus_asked > gpus:
        raise InputError(
            f"{gpus_asked:g} GPUs are asked for, the cluster has {gpus:g}. Lower the number of GPUs or actors."
        )
    on_gpu = sum(pool.min_actors for pool in pools if pool.num_gpus)
    on_cpu = sum(pool.min_actors for pool in pools if not pool.num_gpus)
    if decode_cpus is not None and decode_cpus + on_gpu >= cpus + (not on_cpu):
        raise InputError(
            f"resources.decode_cpus is {decode_cpus}, and {on_gpu} actors beside GPUs take one CPU each; the cluster has"
            f" {cpus:g} CPUs. Lower it."
        )
    own = cpus if on_cpu else cpus * gpus_asked / gpus
    free = own - on_gpu
    if not on_cpu:
        return _fitting(pools, nodes, Share(decode_cpus or max(1, int(free)), 1.0, 1.0))
    free -= decode_cpus or max(min(1.0, own / 2), own / 4)
    for cpus_each in range(int(free / on_cpu), 0, -1):
        share = Share(decode_cpus or int(own - on_gpu - on_cpu * cpus_each), 1.0, float(cpus_each))
        if free_after(share.bundles(pools), nodes) is not None:
            return share
    actor_cpus = _rounded_down(min(1.0, free / on_cpu))
    left = own - on_gpu - on_cpu * actor_cpus
    readers = max(2, int(left))
    return _fitting(pools, nodes, Share(readers, _rounded_down(left / readers), actor_cpus))


def _rounded_down(cpus: float) -> float:
    """Rounded down to Ray's unit, 1/10,000 of a CPU; at least one unit."""
    return max(1, math.floor(cpus * 1e4)) / 1e4


def _fitting(pools: Sequence[ActorPool], nodes: Sequence[Mapping[str, float]], share: Share) -> Share:
    if free_after(share.bundles(pools), nodes) is None:
        actors = ", ".join(f"{pool.min_actors} with {named(share.of(pool))}" for pool in pools)
        raise InputError(
            f"{actors} and {share.readers} readers with {share.reader_cpus:g} CPUs do not fit on the nodes of the cluster."
            " Lower the number of GPUs or actors, or resources.decode_cpus."
        )
    return share


def free_after(bundles: Sequence[Bundle], nodes: Sequence[Mapping[str, float]]) -> list[Bundle] | None:
    """What is left of the nodes when the largest bundles are placed first, as Ray does; None if they do not fit."""
    free = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=lambda bundle: (bundle.get("GPU", 0), bundle["CPU"]), reverse=True):
        room = next((node for node in free if all(node.get(k, 0) > n - 1e-6 for k, n in bundle.items())), None)
        if room is None:
            return None
        for kind, count in bundle.items():
            room[kind] -= count
    return free


class GangLost(Exception):
    """A pipeline lost nodes or a process that it needs; the message names them."""


class Place(NamedTuple):
    """Where an actor goes: its options for Ray, and the id of the node that it is on at first, None if that is not known yet."""

    options: dict[str, Any]
    node: str | None


def place_in(group: PlacementGroup, number: int, bundle: Bundle, node: str | None) -> Place:
    """The place that has this bundle of the group, on `node`."""
    strategy = PlacementGroupSchedulingStrategy(group, number)
    return Place({"num_cpus": bundle["CPU"], "num_gpus": bundle.get("GPU", 0), "scheduling_strategy": strategy}, node)


@dataclass(frozen=True)
class Gang:
    """The reserved resources of one pipeline. pools: for each stage, an actor's bundle and the bundles' numbers in `group`.
    share: what it took of the cluster."""

    group: PlacementGroup
    pools: Sequence[tuple[Bundle, range]]
    share: Share

    def places(self, pool: int) -> list[Place]:
        """The places of a stage's actors. pool: 0 for readers, then the requested pools in order."""
        bundle, numbers = self.pools[pool]
        nodes = placement_group_table(self.group)["bundles_to_node_id"]
        return [place_in(self.group, number, bundle, nodes[number]) for number in numbers]

    def is_whole(self) -> bool:
        """Whether every actor has a node. A task of an actor without one waits, even while other actors are idle."""
        return all(placement_group_table(self.group)["bundles_to_node_id"].values())


@contextmanager
def gang(pools: Sequence[ActorPool], decode_cpus: int | None = None) -> Iterator[Gang]:
    """Waits for room for readers and all of `pools`, and prints what it waits for. Raises InputError as `share_of`."""
    share = share_of(pools, nodes_resources(), decode_cpus)
    wanted = [({"CPU": share.reader_cpus}, share.readers), *((share.of(pool), pool.min_actors) for pool in pools)]
    starts = [0, *itertools.accumulate(count for _, count in wanted)]
    group = placement_group(share.bundles(pools))
    try:
        _wait(group)
        yield Gang(
            group,
            [(bundle, range(start, start + count)) for (bundle, count), start in zip(wanted, starts, strict=False)],
            share,
        )
    finally:
        remove_placement_group(group)


def _wait(group: PlacementGroup) -> None:
    tell_at = time.monotonic() + TOLD_AFTER_S
    while not group.wait(LOOKED_EVERY_S):
        if time.monotonic() > tell_at:
            tell_at = math.inf
            print(
                f"aft-ray: waiting for {named(total(group.bundle_specs))}; {named(ray.available_resources())} are free."
                " Other work holds the rest of this cluster.",
                file=sys.stderr,
                flush=True,
            )


def total(bundles: Sequence[Bundle]) -> Counter[str]:
    found: Counter[str] = Counter()
    for bundle in bundles:
        found.update(bundle)
    return found


def named(resources: Mapping[str, float]) -> str:
    """`2 GPUs and 3 CPUs`."""
    kinds = [kind for kind in ("GPU", "CPU") if kind in resources] or ["CPU"]
    return " and ".join(f"{resources.get(kind, 0):g} {kind}s" for kind in kinds)


class LossWatch:
    """Ends the wait of threads for actors of a gang that has not been whole for `patience_s`: they would wait forever."""

    def __init__(self, gang: Gang, patience_s: float) -> None:
        self.gang, self.patience_s, self.look_at, self.lost_since = gang, patience_s, 0.0, math.inf
        self.looking = threading.Lock()

    def look(self) -> None:
        """Looks, at most every LOOKED_EVERY_S. Raises GangLost."""
        with self.looking:
            now = time.monotonic()
            if now < self.look_at:
                return
            self.look_at = now + LOOKED_EVERY_S
            self.lost_since = math.inf if self.gang.is_whole() else min(self.lost_since, now)
            if now - self.lost_since > self.patience_s:
                raise GangLost("nodes are gone and were not replaced")
