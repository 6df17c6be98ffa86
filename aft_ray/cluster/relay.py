"""The Ray Data actor that leads rows through the actors of a pipeline.

Ray Data places the actors of its own stages one by one, wherever there is room: two pipelines could each hold what the other
waits for. So the actors of all stages are plain actors in a gang, and Ray Data maps its rows through a relay, which calls
an actor of every stage in turn. Only references come through the relay: Ray moves the output of a stage to the node of
the next actor.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.experimental import get_object_locations

from aft_ray.cluster.causes import KNOWN, is_gone, known_cause
from aft_ray.cluster.crew import Pool
from aft_ray.cluster.gang import LOOKED_EVERY_S, Gang, LossWatch
from aft_ray.cluster.joining import Joining
from aft_ray.cluster.read_ahead import ReadAhead
from aft_ray.cluster.slots import Slots

if TYPE_CHECKING:
    from ray.data import Dataset

MOST_ROWS = 1000
"""Most rows on their way through a pipeline: each has a thread of the relay."""
ITEM, RESULT = "item", "result"
"""Columns of Ray Data's rows before and after the relay, both pickled: Arrow would change the types of what is in them.
RESULT holds the result, or the error of KNOWN that ends the pipeline, and a list of Notes."""


class Note(str):
    """A line for the user, among results."""


def relayed(items: Sequence[Any], crew: Sequence[Pool], gang: Gang, patience_s: float) -> Dataset:
    """A pipeline that leads each item through an actor of every pool. patience_s: of LossWatch."""
    import ray.data

    most = min(2 * sum(pool.num_slots for pool in crew), MOST_ROWS, len(items))
    rows = [{ITEM: pickle.dumps(item)} for item in items]
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Relay,
        fn_constructor_args=(crew, gang, patience_s),
        compute=ray.data.ActorPoolStrategy(
            size=1,
            max_concurrent_calls_per_actor=most,
            max_tasks_in_flight_per_actor=most + 1,
            enable_true_multi_threading=True,
        ),
        num_cpus=0,
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    )


class Relay:
    """Leads rows through the pools, each row in a thread of its own."""

    def __init__(self, crew: Sequence[Pool], gang: Gang, patience_s: float) -> None:
        self.pools = [(pool.actors, Slots(pool.nodes, pool.slots_each)) for pool in crew]
        self.losses, self.ahead = LossWatch(gang, patience_s), ReadAhead(**self._room())
        # Nodes that joined bring room for rows that were read, and actors that must not wait for them.
        self.joining = Joining(self.pools, lambda: self.ahead.make_room(**self._room()))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row's result, or the error that ends the pipeline: Ray Data would change its message."""
        try:
            result = self._result(pickle.loads(row[ITEM]))
        except Exception as error:
            result = known_cause(error)
            if not isinstance(result, KNOWN):
                raise
        return {RESULT: pickle.dumps((result, [Note(line) for line in self.joining.lines()]))}

    def _result(self, item: Any) -> Any:
        """What the last stage makes of an item. It begins anew if an actor is lost that had joined."""
        while True:
            passed: list[tuple[Slots, int]] = []
            try:
                return ray.get(self._led(item, passed))
            except Exception as error:
                if not (is_gone(error) and self.joining.may_be_lost(passed)):
                    raise

    def _led(self, item: Any, passed: list[tuple[Slots, int]]) -> ray.ObjectRef:
        """Adds the actors to `passed`."""
        output, node = item, ""
        with self.ahead.one():
            for number, (actors, slots) in enumerate(self.pools):
                with slots.one(node) as (actor, node):
                    passed.append((slots, actor))
                    output = actors[actor].__call__.remote(output)
                    while not ray.wait([output], timeout=LOOKED_EVERY_S, fetch_local=False)[0]:
                        self.losses.look()
                if not number:
                    self.ahead.read(_size(output))
        return output

    def _room(self) -> dict[str, Any]:
        """Arguments of ReadAhead."""
        capacity = ray.cluster_resources().get("object_store_memory", 0.0)
        return {"capacity": capacity, "at_least": sum(slots.num_joined for _, slots in self.pools[1:])}


def _size(output: ray.ObjectRef) -> int:
    """Bytes of an actor's output in the object store, 0 if it is not there: small ones are not."""
    found = get_object_locations([output]).get(output, {})
    return found.get("object_size") or 0
