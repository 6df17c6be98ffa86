"""Actors that join a pipeline while it runs: each gets rows once its model is loaded, and again when it is back from a loss.

One that cannot begin, such as on a node without the workspace, ends no work: the user is told, and the others go on. It keeps
what it has reserved, or the next would be placed there and fail as well. If that node is lost, it begins anew elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import ray

from aft_ray.cluster.causes import is_gone
from aft_ray.cluster.gang import LOOKED_EVERY_S
from aft_ray.cluster.slots import Slots
from aft_ray.recipe.errors import in_a_line

One = tuple[Slots, int]
"""An actor: the slots of its stage, and its number there."""


class Joining:
    """Watches, in a thread, the actors that were not there when the pipeline began."""

    def __init__(
        self, pools: Sequence[tuple[Sequence[ray.actor.ActorHandle], Slots]], changed: Callable[[], None]
    ) -> None:
        """pools: the actors of each stage. changed: is called when an actor has joined or is lost."""
        self.changed = changed
        self.actors: dict[One, ray.actor.ActorHandle] = {
            (slots, number): actor
            for actors, slots in pools
            for number, (actor, node) in enumerate(zip(actors, slots.nodes, strict=True))
            if node is None
        }
        self.asked: dict[ray.ObjectRef, One] = {}
        self.told: set[str] = set()
        self.untold: deque[str] = deque()
        if self.actors:
            threading.Thread(target=self._watch, daemon=True).start()

    def may_be_lost(self, among: Sequence[One]) -> bool:
        """Whether one of these actors had joined. Those that had get no more rows until they answer."""
        found = [one for one in among if one in self.actors]
        for slots, number in found:
            slots.leave(number)
        if found:
            self.changed()
        return bool(found)

    def lines(self) -> list[str]:
        """What to tell the user, a line for each node and fault; each once."""
        return [self.untold.popleft() for _ in range(len(self.untold))]

    def _watch(self) -> None:
        while True:
            time.sleep(LOOKED_EVERY_S)
            self.look()

    def look(self) -> None:
        """Asks every actor that is not there, and lets those join that have answered since the last look."""
        waiting = set(self.asked.values())
        for one, actor in self.actors.items():
            if one[0].nodes[one[1]] is None and one not in waiting:
                self.asked[actor.begun.remote()] = one
        if not self.asked:
            return
        for answer in ray.wait([*self.asked], num_returns=len(self.asked), timeout=0)[0]:
            slots, number = self.asked.pop(answer)
            try:
                node, fault = ray.get(answer)
            except ray.exceptions.RayError as error:
                if not is_gone(error) or getattr(error, "actor_init_failed", False):
                    self._tell(in_a_line(error, last=True))
                continue  # it is lost; Ray starts it again where there is room
            if fault:
                self._tell(fault)
            else:
                slots.join(number, node)
                self.changed()

    def _tell(self, fault: str) -> None:
        line = f"an actor cannot join, the others go on: {fault}"
        if line not in self.told:
            self.told.add(line)
            self.untold.append(line)
