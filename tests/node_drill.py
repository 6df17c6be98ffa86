"""`python -m tests.node_drill RECIPE LOG CPUS ...`: extract on local nodes with so many CPUs, of which the second is killed
on the way."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from aft_ray.cli import set_environment


def drill(recipe_path: str, log: Path, cpus: list[int]) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from aft_ray import ray_data
    from aft_ray.config import load
    from aft_ray.extract import extract
    from tests.own_teachers import calls

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], "object_store_memory": 80 << 20})
    workers = [cluster.add_node(num_cpus=count, object_store_memory=80 << 20) for count in cpus[1:]]
    ray.init(address=cluster.address, log_to_driver=False)

    ray_data.LOST_AFTER_S = 3.0  # nobody brings another node

    def kill() -> None:
        while len(calls(log)) < 7:  # in the middle of a shard
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
    drill(sys.argv[1], Path(sys.argv[2]), [int(count) for count in sys.argv[3:]])
