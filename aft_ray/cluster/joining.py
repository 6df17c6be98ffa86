"""Actors that join a pipeline while it runs: each gets rows once its model is loaded, and again when it is back from a loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import ray

from aft_ray.cluster.gang import LOOKED_EVERY_S
from aft_ray.cluster.slots import Slots


class Joining:
    """Watches, in a thread, the actors that were not there when the pipeline began."""

    def __init__(
        self, pools: Sequence[tuple[Sequence[ray.actor.ActorHandle], Slots]], changed: Callable[[], None]
    ) -> None:
        """pools: the actors of each stage. changed: is called when an actor has joined."""
        self.changed = changed
        self.actors = {
            (slots, number): actor
            for actors, slots in pools
            for number, (actor, node) in enumerate(zip(actors, slots.nodes, strict=True))
            if node is None
        }
        if self.actors:
            threading.Thread(target=self._watch, daemon=True).start()

    def may_be_lost(self, among: Sequence[tuple[Slots, int]]) -> bool:
        """Whether one of these actors had joined. Those that had get no more rows until they answer."""
        found = [one for one in among if one in self.actors]
        for slots, number in found:
            slots.leave(number)
        return bool(found)

    def _watch(self) -> None:
        asked: dict[ray.ObjectRef, tuple[Slots, int]] = {}
        while True:
            waiting = set(asked.values())
            for one, actor in self.actors.items():
                if one[0].nodes[one[1]] is None and one not in waiting:
                    asked[actor.node.remote()] = one
            if not asked:
                time.sleep(LOOKED_EVERY_S)
                continue
            for answer in ray.wait([*asked], timeout=LOOKED_EVERY_S)[0]:
                slots, number = asked.pop(answer)
                try:
                    slots.join(number, ray.get(answer))
                except ray.exceptions.RayError:  # it is lost; Ray starts it again where there is room
                    time.sleep(LOOKED_EVERY_S)
                else:
                    self.changed()
