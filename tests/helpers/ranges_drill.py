"""`python -m tests.helpers.ranges_drill RECIPE LOG`: two ranges in one cluster of two local nodes; one of them is killed.

A node has room for one range: a GPU, made up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from aft_ray.commands.environment import set_environment

NODE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


def drill(recipe_path: str, log: Path) -> None:
    from ray.cluster_utils import Cluster

    from tests.helpers.own_teachers import calls

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    own = {**os.environ, "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-m", "aft_ray.cli", "extract", recipe_path, "--range"]
    ranges = [subprocess.Popen([*command, f"{number}/2"], env=own) for number in range(2)]
    while len({pid for pid, _ in calls(log)}) < 2:
        assert all(process.poll() is None for process in ranges), "a range ended before both were at work"
        time.sleep(0.05)
    ranges[0].kill()
    print("ended with", [process.wait() for process in ranges], flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    set_environment()
    drill(sys.argv[1], Path(sys.argv[2]))
