"""Room for the actors that join a pipeline while it runs.

A pipeline begins with its gang, which can do all the work. Each further actor is reserved with its part of readers, so that it
does not wait for shards, in a placement group of its own. Ray creates the group when the cluster has room for it, and its
autoscaler sees groups that wait. Such actors cannot block another pipeline for ever: a pipeline needs none of them to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from aft_ray.cluster.gang import ActorPool, Bundle, Place, Share, free_after, place_in, share_of


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


def additions(pools: Sequence[ActorPool], share: Share, decode_cpus: int | None, num_items: int) -> list[Addition]:
    """What may join, in the order in which it is asked for: an actor of each pool in turn.

    decode_cpus: where it is given, no readers join. num_items: most actors of a pool.
    """
    begun = sum(pool.min_actors for pool in pools)
    found: list[Addition] = []
    for number in range(max((pool.max_actors - pool.min_actors for pool in pools), default=0)):
        for stage, pool in enumerate(pools, 1):
            if pool.min_actors + number < min(pool.max_actors, num_items):
                own, before = len(found) + 1, len(found)
                readers = 0 if decode_cpus else share.readers * own // begun - share.readers * before // begun
                found.append(Addition(stage, [share.of(pool), *[{"CPU": share.reader_cpus}] * readers]))
    return found


def actors_with_room(
    pools: Sequence[ActorPool], nodes: Sequence[Mapping[str, float]], decode_cpus: int | None = None
) -> list[int]:
    """How many actors of each pool these nodes have room for at once. Raises InputError as `share_of`."""
    share = share_of(pools, nodes, decode_cpus)
    counts = [pool.min_actors for pool in pools]
    free = free_after(share.bundles(pools), nodes)
    for addition in additions(pools, share, decode_cpus, max(pool.max_actors for pool in pools)):
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
        for addition in additions(pools, share, decode_cpus, num_items):
            groups.append((addition, placement_group(addition.bundles)))
        yield Growth(groups)
    finally:
        for _, group in groups:
            remove_placement_group(group)
