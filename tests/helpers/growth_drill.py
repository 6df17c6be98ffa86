"""`python -m tests.helpers.growth_drill RECIPE LOG`: extract on one node; two more come, one of them is killed, another comes.

The recipe's teacher is `Means`, with a minimum of one actor and a maximum of three; a node has room for one and its reader.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from aft_ray.commands.environment import set_environment
from tests.helpers.node_drill import SHARD, SMALL
from tests.helpers.own_teachers import calls


def drill(recipe_path: str, log: Path) -> None:
    import ray
    from ray._private.state import actors  # the public list of actors asks the dashboard, which may start late
    from ray.cluster_utils import Cluster

    from aft_ray.extraction.extract import extract
    from aft_ray.recipe.config import load

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **SMALL})
    ray.init(address=cluster.address, log_to_driver=False)

    def processes() -> set[int]:
        return {pid for pid, _ in calls(log)}

    work = threading.Thread(target=lambda: print(extract(load(recipe_path))))
    work.start()  # not the main thread, which alone may add nodes
    while not calls(log):
        time.sleep(0.05)
    joined = {node.node_id: node for node in (cluster.add_node(num_cpus=2, **SMALL) for _ in range(2))}
    while len(processes()) < 3:  # the recipe's teacher does not go on before
        time.sleep(0.05)
    busy: set[str] = set()
    while not busy:
        nodes = {actor["Pid"]: actor["Address"]["NodeID"] for actor in actors().values()}
        pids = [pid for pid, _ in calls(log)]
        busy = {nodes[pid] for pid in pids if pid in nodes and pids.count(pid) % SHARD} & joined.keys()
    cluster.remove_node(joined[busy.pop()], allow_graceful=False)
    print("processes when a node was killed:", len(processes()))
    cluster.add_node(num_cpus=2, **SMALL)
    work.join()
    print("processes at the end:", len(processes()))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    set_environment()
    drill(sys.argv[1], Path(sys.argv[2]))
