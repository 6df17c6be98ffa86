"""`python -m tests.helpers.node_drill RECIPE LOG CPUS ...`: extract on local nodes with so many CPUs; one of them is killed.

It dies while its teacher is in the middle of a shard. It is never the first node, where the driver runs.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from aft_ray.commands.environment import set_environment

SHARD = 3
"""Samples of one, in batches of one."""
SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


def drill(recipe_path: str, log: Path, cpus: list[int]) -> None:
    import ray
    from ray._private.state import actors  # the public list of actors asks the dashboard, which may start late
    from ray.cluster_utils import Cluster

    from aft_ray.cluster import pipelines
    from aft_ray.extraction.extract import extract
    from aft_ray.recipe.config import load
    from tests.helpers.own_teachers import calls

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], **SMALL})
    workers = [cluster.add_node(num_cpus=count, **SMALL) for count in cpus[1:]]
    ray.init(address=cluster.address, log_to_driver=False)

    pipelines.LOST_AFTER_S = 3.0  # nobody brings another node

    def kill() -> None:
        while True:
            time.sleep(0.05)
            found = calls(log)
            if len(found) < 7:
                continue
            alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
            nodes = {actor["Pid"]: actor["Address"]["NodeID"] for actor in alive}
            busy = {nodes.get(pid) for pid, _ in found if sum(own == pid for own, _ in found) % SHARD}
            of_a_teacher = [node for node in workers if node.node_id in busy]
            if of_a_teacher or len(workers) == 1:
                cluster.remove_node((of_a_teacher or workers)[0], allow_graceful=False)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    print(extract(load(recipe_path)))
    killer.join()
    print("nodes alive:", sum(node["Alive"] for node in ray.nodes()))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    set_environment()
    drill(sys.argv[1], Path(sys.argv[2]), [int(count) for count in sys.argv[3:]])
