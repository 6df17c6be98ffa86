"""What Prometheus reads from a node's agent."""

from __future__ import annotations

import time
import urllib.request

import pytest

from aft_ray.cluster.gauges import show_gauges


@pytest.mark.ray
def test_a_stage_s_numbers_are_what_prometheus_reads(cluster: None, capfd: pytest.CaptureFixture[str]) -> None:
    import ray

    show_gauges("extract", "clip", {"samples_per_s": 123.5, "busy": 0.75, "batch_size": 64})
    node = ray.nodes()[0]
    url, until, text = (
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics",
        time.monotonic() + 60,
        "",
    )
    while "ray_aft_ray_busy" not in text and time.monotonic() < until:
        time.sleep(0.5)  # between two looks at what the agent collects at its own pace
        text = urllib.request.urlopen(url, timeout=10).read().decode()
    lines = [line for line in text.splitlines() if line.startswith("ray_aft_ray_") and 'name="clip"' in line]
    assert {line.partition("{")[0]: line.rpartition(" ")[2] for line in lines} == {
        "ray_aft_ray_samples_per_s": "123.5",
        "ray_aft_ray_busy": "0.75",
    }
    assert all('stage="extract"' in line for line in lines)
    assert capfd.readouterr() == ("", "")
