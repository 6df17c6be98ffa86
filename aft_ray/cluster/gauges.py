"""Metrics of the stages for Ray's dashboard and for Prometheus, which scrapes them from every node's agent.

Ray drops a gauge when its process ends. Without Ray these functions do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from aft_ray.cluster.address import connected_ray

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

GAUGES = {
    "shards_left": "Features shards that a teacher still has to make",
    "trials_left": "Trials of a search, or of its final runs, that are not over",
    "samples_per_s": "Samples per second, of a teacher or of a training run",
    "busy": "Share of its actors' time that a teacher spends computing",
    "step_s": "Seconds that a training step takes",
    "input_wait": "Share of the time for which training waits for its input",
}
"""Every gauge, exported as `ray_aft_ray_<key>` with the tags `stage` and `name` (a teacher or a run)."""


def show_gauges(stage: str, name: str, values: Mapping[str, float]) -> None:
    """Sets the gauges among `values`; ignores other keys."""
    if not connected_ray():
        return
    for key in GAUGES.keys() & values.keys():
        _gauge(key).set(values[key], {"stage": stage, "name": name})


@cache
def _gauge(key: str) -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge(f"aft_ray_{key}", GAUGES[key], tag_keys=("stage", "name"))
