"""`python -m tests.node_drill RECIPE LOG`: extract on three local nodes, of which one is killed on the way."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from aft_ray.cli import set_environment


def drill(recipe_path: str, log: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from aft_ray.config import load
    from aft_ray.extract import extract
    from tests.own_teachers import calls

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
    workers = [cluster.add_node(num_cpus=2, object_store_memory=80 << 20) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)

    def kill() -> None:
        while len(calls(log)) < 6:
            time.sleep(0.05)
        cluster.remove_node(workers[0], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    print(extract(load(recipe_path)))
    killer.join()
    print("nodes alive:", sum(node["Alive"] for node in ray.nodes()))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    set_environment()
    drill(sys.argv[1], Path(sys.argv[2]))
