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
    """`ray up` checks a file in private functions alone, and its public commands begin to start machines."""
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


def test_ray_s_launcher_takes_the_groups_and_profiles_of_every_node_and_makes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The group that Ray would make opens SSH to the whole internet; its profile reaches the head alone."""
    from ray.autoscaler._private.aws import config as launcher

    def forbidden(*arguments: object) -> None:
        raise AssertionError("the launcher asks AWS")

    monkeypatch.setattr(launcher, "_resource", forbidden)
    monkeypatch.setattr(launcher, "_client", forbidden)
    made = launcher._configure_security_group(launcher._configure_iam_role({**copy.deepcopy(CLUSTER), "head_node": {}}))
    profiles = set()
    for node in made["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"] == ["SECURITY_GROUP"]
        profiles.add(node["node_config"]["IamInstanceProfile"]["Name"])
    assert profiles == {"HEAD_PROFILE", "NODE_PROFILE"}
    head = made["available_node_types"]["head"]["node_config"]
    assert head["IamInstanceProfile"] == {"Name": "HEAD_PROFILE"}


def test_the_nodes_get_what_an_installation_needs_and_nothing_else() -> None:
    mounts = {place: source for place, source in CLUSTER["file_mounts"].items() if not source.startswith("~")}
    assert mounts == {f"/home/ubuntu/aft_ray/{source}": source for source in mounts.values()}
    project = (ROOT / "pyproject.toml").read_text()
    needed = {"aft_ray", "jobs", "pyproject.toml", "Makefile", "constraints.txt", "README.md", "LICENSE", "NOTICE"}
    assert set(mounts.values()) == needed and all((ROOT / name).exists() for name in needed)
    for line in (
        'readme = "README.md"',
        'license-files = ["LICENSE", "NOTICE"]',
        'include = ["/aft_ray", "/jobs/recipes/**/*.yaml"]',
    ):
        assert line in project, "another file is needed"
    assert {".?*", "work"} <= set(CLUSTER["rsync_exclude"])


# The fields of KubeRay's RayJob v1, its RayCluster and groups, and of the pods inside, that our manifest may use.
TEXT, NUMBER, TRUTH = (str,), (int,), (bool,)
POD: dict[str, Any] = {
    "spec": {
        "restartPolicy?": TEXT,
        "nodeSelector?": {"*": TEXT},
        "tolerations?": [{"key": TEXT, "operator": TEXT, "effect": TEXT}],
        "securityContext?": {"runAsUser": NUMBER, "fsGroup": NUMBER, "fsGroupChangePolicy": TEXT},
        "containers": [
            {
                "name": TEXT,
                "image": TEXT,
                "resources": {"requests": {"*": TEXT}, "limits": {"*": TEXT}},
                "volumeMounts?": [{"name": TEXT, "mountPath": TEXT, "readOnly?": TRUTH}],
            }
        ],
        "volumes?": [
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
        "activeDeadlineSeconds": NUMBER,
        "backoffLimit": NUMBER,
        "submitterPodTemplate": POD,
        "rayClusterSpec": {
            "rayVersion": TEXT,
            "authOptions": {"mode": TEXT, "secretName": TEXT},
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


def test_the_manifest_is_a_ray_job() -> None:
    assert misfits(RAY_JOB, MANIFEST) == []
    assert (RAY_JOB["apiVersion"], RAY_JOB["kind"]) == ("ray.io/v1", "RayJob")
    cluster = RAY_JOB["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        assert {mount["name"] for mount in pod["containers"][0].get("volumeMounts", ())} == volumes


def test_the_manifest_leaves_the_token_to_the_operator_whose_own_client_and_autoscaler_need_it_too() -> None:
    """Variables of the containers would reach the Ray containers alone. The operator reads the key `auth_token`."""
    assert RAY_JOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "aft-token"}
    assert not any("env" in container for pod in pods() for container in pod["containers"])
    told = (ROOT / "jobs" / "kuberay.yaml").read_text()
    assert "create secret generic aft-token --from-literal=auth_token=" in told


def test_the_manifest_keeps_head_and_submitter_off_spot_nodes_and_can_write_to_the_volume() -> None:
    submitter, head, *workers = pods()
    for pod in (submitter, head):
        assert pod["nodeSelector"] == {"aft-ray/pool": "head"} and "tolerations" not in pod
    for pod in workers:
        assert "aft-ray/spot" in {toleration["key"] for toleration in pod["tolerations"]}
    for pod in (head, *workers):
        assert pod["securityContext"]["fsGroup"] == 100  # of the user that Ray's images run as
    on_gpu = [pod for pod in workers if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]]
    assert on_gpu and all("nvidia.com/gpu" in {taint["key"] for taint in pod["tolerations"]} for pod in on_gpu)


def pods() -> list[dict[str, Any]]:
    """The pods' specs: of the submitter, the head, and each group of workers."""
    job = RAY_JOB["spec"]
    cluster = job["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [template["spec"] for template in (job["submitterPodTemplate"], *(group["template"] for group in groups))]


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
    """The node types of cluster.yaml, on Ray's own simulated machines. The second actor's node comes while the first works."""
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
    teacher: dict[str, Any] = {"name": "means", "model": "tests.helpers.own_teachers:Means", "num_gpus": 1}
    teacher["num_actors"] = {"min": 1, "max": 2}
    recipe.write_text(
        yaml.safe_dump(
            {
                "workspace": str(tmp_path / "work"),
                "dataset": {"source": "image_folder", "path": str(image_folder), "samples_per_shard": 10},
                "teachers": [teacher | {"options": {"log": str(tmp_path / "calls.log"), "beside": 2, "pause_s": 2}}],
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
