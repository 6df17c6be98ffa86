"""cluster.yaml and jobs/kuberay.yaml: valid for those who read them, and nodes come and go as they say."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import ROOT
from tests.helpers.jobs import free_ports, started

CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())
RAY_JOB = yaml.safe_load((ROOT / "jobs" / "kuberay.yaml").read_text())


def test_cluster_yaml_is_what_ray_s_launcher_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(CLUSTER))
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu"]["max_workers"] == 16
    with pytest.raises(Exception, match="max_wrkers"):
        validate_config(prepared | {"max_wrkers": 1})


def test_cluster_yaml_has_tokens_on_and_drivers_off_spot_nodes() -> None:
    types = CLUSTER["available_node_types"]
    assert "InstanceMarketOptions" not in types["head"]["node_config"] and types["head"]["resources"]["CPU"] == 0
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert all("RAY_AUTH_MODE=token" in line for line in CLUSTER[commands] if "ray start" in line)
    assert "/home/ubuntu/.ray/auth_token" in CLUSTER["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in CLUSTER["head_start_ray_commands"][1]


# The fields of KubeRay's RayJob, RayCluster and their groups, and of the pods inside, that our manifest may use.
TEXT, NUMBER, TRUTH = (str,), (int,), (bool,)
POD: dict[str, Any] = {
    "spec": {
        "containers": [
            {
                "name": TEXT,
                "image": TEXT,
                "env": [{"name": TEXT, "value?": TEXT, "valueFrom?": {"secretKeyRef": {"name": TEXT, "key": TEXT}}}],
                "resources": {"limits": {"*": TEXT}},
                "volumeMounts": [{"name": TEXT, "mountPath": TEXT, "readOnly?": TRUTH}],
            }
        ],
        "volumes": [
            {"name": TEXT, "persistentVolumeClaim?": {"claimName": TEXT}, "configMap?": {"name": TEXT}},
        ],
    }
}
MANIFEST: dict[str, Any] = {
    "apiVersion": TEXT,
    "kind": TEXT,
    "metadata": {"name": TEXT},
    "spec": {
        "entrypoint": TEXT,
        "shutdownAfterJobFinishes": TRUTH,
        "ttlSecondsAfterFinished": NUMBER,
        "backoffLimit": NUMBER,
        "rayClusterSpec": {
            "rayVersion": TEXT,
            "enableInTreeAutoscaling": TRUTH,
            "autoscalerOptions": {"idleTimeoutSeconds": NUMBER},
            "headGroupSpec": {"rayStartParams": {"*": TEXT}, "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": TEXT,
                    "replicas": NUMBER,
                    "minReplicas": NUMBER,
                    "maxReplicas": NUMBER,
                    "rayStartParams": {"*": TEXT},
                    "template": POD,
                }
            ],
        },
    },
}


def misfits(value: Any, shape: Any, where: str = "") -> list[str]:
    """Where `value` has not the shape; a key with `?` may be missing, `*` stands for any key."""
    if isinstance(shape, tuple):
        return [] if type(value) in shape else [f"{where} is {value!r}"]
    if isinstance(shape, list):
        return [fault for number, item in enumerate(value) for fault in misfits(item, shape[0], f"{where}[{number}]")]
    if "*" in shape:
        return [fault for key in value for fault in misfits(value[key], shape["*"], f"{where}.{key}")]
    shapes = {key.rstrip("?"): part for key, part in shape.items()}
    faults = [f"{where}.{key} is unknown" for key in value if key not in shapes]
    faults += [f"{where}.{key} is missing" for key in shape if not key.endswith("?") and key not in value]
    return faults + [f for key in value if key in shapes for f in misfits(value[key], shapes[key], f"{where}.{key}")]


def test_the_manifest_is_a_ray_job_with_tokens_on() -> None:
    assert misfits(RAY_JOB, MANIFEST) == []
    assert (RAY_JOB["apiVersion"], RAY_JOB["kind"]) == ("ray.io/v1", "RayJob")
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in group["template"]["spec"]["volumes"]
        }


WAIT_UNTIL_GONE = """
import ray, time
ray.init(log_to_driver=False)
while any(node["Alive"] and node["Resources"].get("CPU") for node in ray.nodes()):
    time.sleep(0.2)
print(sum(not node["Alive"] for node in ray.nodes()))
"""


@pytest.mark.ray
@pytest.mark.processes
def test_nodes_come_for_work_that_asks_for_gpus_and_go_when_it_is_done(tmp_path: Path, image_folder: Path) -> None:
    """The node types of cluster.yaml, on Ray's own simulated machines."""
    types = {name: {**kind, "node_config": {}} for name, kind in CLUSTER["available_node_types"].items()}
    types["ray.head.default"] = types.pop("head") | {"max_workers": 0}  # as the simulation calls it
    scaling: dict[str, Any] = {
        "cluster_name": "simulated",
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        "max_workers": CLUSTER["max_workers"],
        "upscaling_speed": CLUSTER["upscaling_speed"],
        "idle_timeout_minutes": 0.3,  # enough for the work to begin
    }
    scaling |= dict.fromkeys(("auth", "docker", "file_mounts"), {})
    commands = [f"{node}_{kind}" for node in ("head", "worker") for kind in ("setup_commands", "start_ray_commands")]
    nothing = ("cluster_synced_files", "initialization_commands", "setup_commands", "rsync_exclude", "rsync_filter")
    scaling |= dict.fromkeys([*nothing, *commands], [])
    recipe = tmp_path / "recipe.yaml"
    teacher = {"name": "means", "model": "tests.helpers.own_teachers:Means", "num_actors": 2, "num_gpus": 1}
    recipe.write_text(
        yaml.safe_dump(
            {
                "workspace": str(tmp_path / "work"),
                "dataset": {"source": "image_folder", "path": str(image_folder), "samples_per_shard": 10},
                "teachers": [teacher | {"options": {"log": str(tmp_path / "calls.log"), "pause_s": 2}}],
                "student": {"model": "tiny:cnn"},
                "resources": {"wait_s": 120},
            }
        )
    )
    fake = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_METRIC_PORT": str(free_ports(1)[0]),
    }
    with started(tmp_path, "--num-cpus=0", environment=fake, scaling=scaling) as cluster:
        own = {"RAY_ADDRESS": cluster.address}
        aft_ray = (sys.executable, "-m", "aft_ray.cli")
        assert cluster.run(*aft_ray, "prepare", str(recipe)).returncode == 0
        teachers = f"teachers=[{json.dumps(teacher | {'num_actors': 17})}]"
        too_many = cluster.run(*aft_ray, "extract", str(recipe), teachers, "resources.wait_s=0", environment=own)
        assert too_many.returncode == 2 and "17 GPUs are asked for, the cluster has 0 after 0 s." in too_many.stderr
        done = cluster.run(*aft_ray, "extract", str(recipe), environment=own)
        assert done.returncode == 0, done.stderr
        assert len({line.split()[0] for line in (tmp_path / "calls.log").read_text().splitlines()}) == 2
        gone = cluster.run(sys.executable, "-c", WAIT_UNTIL_GONE, environment=own)
        assert gone.returncode == 0 and int(gone.stdout) >= 2, gone.stdout + gone.stderr
