"""The machines that work runs on: a cluster's nodes, or this machine alone."""

from __future__ import annotations

import os
from pathlib import Path

from aft_ray.cluster.address import connected_ray

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the memory that a container may use, in bytes or `max`, of control groups v2 and v1."""


def nodes_resources() -> list[dict[str, float]]:
    """CPU, GPU and memory (bytes) in all of each node that is alive; without Ray, of this machine."""
    if ray := connected_ray():
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]
    import torch

    return [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count(), "memory": memory_here()}]


def memory_here() -> float:
    """Bytes that this machine has, or this container may use."""
    limits = [Path(name).read_text(encoding="utf-8").strip() for name in CGROUP_LIMITS if Path(name).exists()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float(min([physical, *(int(limit) for limit in limits if limit.isdigit())]))
