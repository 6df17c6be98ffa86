"""One measurement of extraction, as a script: `extraction_measure.py FUNCTION RECIPE ...` prints its result as JSON."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from aft_ray.commands.environment import set_environment
from aft_ray.recipe.config import Recipe

MIB = 2**20


def measure_pipeline(recipe_path: str) -> dict[str, Any]:
    """`aft-ray extract` of everything: wall seconds from import to end, and each teacher's steady samples/s."""
    started = time.perf_counter()
    set_environment()
    import ray

    from aft_ray.extraction.extract import extract
    from aft_ray.recipe.config import load

    recipe = load(recipe_path)
    cpus = os.cpu_count() if any(teacher.num_gpus for teacher in recipe.teachers) else 2
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False)
    extract(recipe, overwrite=True)
    seconds = time.perf_counter() - started
    last = json.loads((Path(recipe.workspace) / "extract.jsonl").read_text().splitlines()[-1])
    samples = sum(teacher["samples"] for teacher in last["teachers"].values()) / len(last["teachers"])
    slowest = min(teacher["samples_per_s"] for teacher in last["teachers"].values())
    busy = min(teacher["busy"] for teacher in last["teachers"].values())
    return {"seconds": seconds, "samples_per_s": slowest, "start_up_s": seconds - samples / slowest, "busy": busy}


def measure_loop(recipe_path: str) -> dict[str, Any]:
    """A plain loop: a DataLoader with one worker that decodes, one model thread, torch.save at the end; for a GPU a worker on
    every other core, page-locked memory and bf16."""
    started = time.perf_counter()
    import timm
    from safetensors.torch import load_file
    from timm.data import create_transform, resolve_data_config
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    recipe = Recipe.model_validate_json(Path(recipe_path).read_text())
    torch.set_num_threads(1)
    (teacher,) = recipe.teachers
    model = timm.create_model(teacher.model.removeprefix("timm:"))
    model.load_state_dict(load_file(str(teacher.weights)))
    model.reset_classifier(0)
    device = torch.device("cuda" if teacher.num_gpus else "cpu")
    model = model.eval().to(device)
    transform = create_transform(**resolve_data_config({}, model=model))
    assert recipe.dataset.path
    gpu, pictures = bool(teacher.num_gpus), ImageFolder(recipe.dataset.path, transform)
    workers = (os.cpu_count() or 2) - 1 if gpu else 1
    loader = DataLoader(pictures, batch_size=teacher.batch_size, num_workers=workers, pin_memory=gpu)
    features, count, first = [], 0, 0.0
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=gpu):
        for images, _ in loader:
            features.append(model(images.to(device, non_blocking=True)).float())
            count += len(images)
            first = first or time.perf_counter()
    whole = torch.cat(features).cpu()
    steady = (count - teacher.batch_size) / (time.perf_counter() - first)
    torch.save(whole, Path(recipe.workspace).parent / "features.pt")
    return {"seconds": time.perf_counter() - started, "samples_per_s": steady, "start_up_s": first - started}


def measure_scaling(recipe_path: str, num_actors: str) -> dict[str, Any]:
    """Share of the actors' time spent on batches, between the start of the last actor and of the last shard."""
    set_environment()
    import ray
    from ray.cluster_utils import Cluster

    from aft_ray.extraction.extract import extract
    from aft_ray.recipe.config import load

    recipe, actors = load(recipe_path), int(num_actors)
    per_node = -(-actors // 3)
    node = {"num_cpus": per_node + 2, "num_gpus": per_node, "object_store_memory": 100 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(2):
        cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False)
    log = Path(recipe.teachers[0].options["log"])
    log.unlink(missing_ok=True)
    extract(recipe, overwrite=True)
    ray.shutdown()
    cluster.shutdown()
    calls = [(pid, float(start), float(end)) for pid, start, end in map(str.split, log.read_text().splitlines())]
    begun = {pid: min(start for other, start, _ in calls if other == pid) for pid, _, _ in calls}
    window = max(begun.values()), max(start for _, start, _ in calls)
    busy = sum(max(0.0, min(end, window[1]) - max(start, window[0])) for _, start, end in calls)
    efficiency = busy / (len(begun) * (window[1] - window[0]))
    return {"actors": len(begun), "efficiency": efficiency, "window_s": window[1] - window[0]}


def measure_memory(recipe_path: str, in_a_round: str) -> dict[str, Any]:
    """Peaks in MiB: the rise of the driver's resident memory after start-up, the resident memory of a pipeline's process and of
    its relay with their libraries, and the objects in the store."""
    set_environment()
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address  # no public call tells this
    from ray._private.state import actors  # ray.util.state needs a dashboard, which would be measured too

    from aft_ray.extraction import extract as extraction
    from aft_ray.recipe.config import load

    extraction.ROUND = int(in_a_round)
    recipe = load(recipe_path)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    before, done = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, threading.Event()
    peak = {"object_store_mib": 0.0, "pipeline_mib": 0.0, "relay_mib": 0.0}

    def watch() -> None:
        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        while not done.wait(0.2):
            used = get_memory_info_reply(state).store_stats.object_store_bytes_used / MIB
            peak["object_store_mib"] = max(peak["object_store_mib"], used)
            for actor in actors().values():
                status = Path(f"/proc/{actor['Pid']}/status")
                for leader, key in (("Conductor", "pipeline_mib"), ("MapWorker(Map(Relay))", "relay_mib")):
                    if actor["ActorClassName"] == leader and actor["State"] == "ALIVE" and status.exists():
                        peak[key] = max(peak[key], int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    extraction.extract(recipe, overwrite=True)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    driver = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"driver_mib": driver, "seconds": seconds, **peak}


MEASUREMENTS = {
    function.__name__: function for function in (measure_pipeline, measure_loop, measure_scaling, measure_memory)
}

if __name__ == "__main__":
    print(json.dumps(MEASUREMENTS[sys.argv[1]](*sys.argv[2:])))
