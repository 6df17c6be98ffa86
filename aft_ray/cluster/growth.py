"""Room for the actors that join a pipeline while it runs.

A pipeline begins with its gang, which can do all the work. Each further actor is reserved with its part of the readers, so that
it does not wait for shards, in a placement group of its own. Ray creates the group when the cluster has room for it, and its
autoscaler sees groups that wait. Such actors cannot block another pipeline for ever: a pipeline needs none of them to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from aft_ray.cluster.gang import ActorPool, Bundle, Place, Share, free_after, place_in, share_of
from aft_ray.cluster.nodes import nodes_resources


class Addition(NamedTuple):
    """One more actor of a stage and readers for it. stage: 1 for the first pool. bundles: the actor's, then the readers'."""

    stage: int
    bundles: list[Bundle]


class Growth:
    """The reserved, or still awaited, resources of actors that join one pipeline."""

    def __init__(self, groups: Sequence[tuple[Addition, PlacementGroup]]) -> None:
        self.groups = groups

    def places(self, stage: int) -> list[Place]:
        """Of the actors of a stage that join. stage: 0 for readers, then the requested pools in order."""
        return [
            place_in(group, number, bundle, None)
            for addition, group in self.groups
            for number, bundle in enumerate(addition.bundles)
            if stage == (0 if number else addition.stage)
        ]


def additions(
    pools: Sequence[ActorPool],
    share: Share,
    nodes: Sequence[Mapping[str, float]],
    decode_cpus: int | None,
    num_items: int,
) -> list[Addition]:
    """What may join, in the order in which it is asked for: an actor of each pool in turn, each with its part of the readers.

    decode_cpus: where it is given, no readers join. num_items: most actors of a pool.
    """
    each = share.readers / sum(pool.min_actors for pool in pools)
    parts = [0.0 if decode_cpus else min(each, _readers_beside(share.of(pool), share, nodes)) for pool in pools]
    found: list[Addition] = []
    due = 0.0
    for number in range(max((pool.max_actors - pool.min_actors for pool in pools), default=0)):
        for stage, pool in enumerate(pools, 1):
            if pool.min_actors + number < min(pool.max_actors, num_items):
                due += parts[stage - 1]
                readers = int(due + 1e-6)
                due -= readers
                found.append(Addition(stage, [share.of(pool), *[{"CPU": share.reader_cpus}] * readers]))
    return found


def _readers_beside(actor: Bundle, share: Share, nodes: Sequence[Mapping[str, float]]) -> float:
    """Readers that have room on the node of an actor that takes as large a part of its CPUs as of its GPUs.

    With more, as where nodes without a GPU let the first actors have many, an actor would find room on no node.
    """
    gpus = actor.get("GPU", 0)
    kinds = [node for node in nodes if all(node.get(kind, 0) >= count for kind, count in actor.items())]
    cpus = (node["CPU"] * (gpus / node["GPU"] if gpus else 1) for node in kinds)
    return max(0.0, max(cpus, default=0.0) - actor["CPU"]) / share.reader_cpus


def actors_with_room(
    pools: Sequence[ActorPool], nodes: Sequence[Mapping[str, float]], decode_cpus: int | None = None
) -> list[int]:
    """How many actors of each pool these nodes have room for at once. Raises InputError as `share_of`."""
    share = share_of(pools, nodes, decode_cpus)
    counts = [pool.min_actors for pool in pools]
    free = free_after(share.bundles(pools), nodes)
    for addition in additions(pools, share, nodes, decode_cpus, max(pool.max_actors for pool in pools)):
        left = free_after(addition.bundles, free or [])
        if left is not None:
            free = left
            counts[addition.stage - 1] += 1
    return counts


@contextmanager
def growth(pools: Sequence[ActorPool], share: Share, decode_cpus: int | None, num_items: int) -> Iterator[Growth]:
    """Asks the cluster for all `additions`, until the end of the context."""
    groups: list[tuple[Addition, PlacementGroup]] = []
    try:
        for addition in additions(pools, share, nodes_resources(), decode_cpus, num_items):
            groups.append((addition, placement_group(addition.bundles)))
        yield Growth(groups)
    finally:
        for _, group in groups:
            remove_placement_group(group)
