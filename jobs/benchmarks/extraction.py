"""Extraction against a plain loop, its scaling over actors, and its memory over shards.

    python jobs/benchmarks/extraction.py loop      samples/s against decoding + model in one script, start-up apart
                                         (--device cuda: with bf16 on a GPU, decoding on all other cores)
    python jobs/benchmarks/extraction.py together  two teachers in one pass against one after the other
    python jobs/benchmarks/extraction.py scaling   1 to 32 sleeping teachers on fake GPUs of three local nodes
    python jobs/benchmarks/extraction.py memory    peak of the driver and of the object store, 100 to 10,000 shards
    python jobs/benchmarks/extraction.py read      Store.read_shard from the page cache

Pictures are JPEGs of smoothed noise, models have random weights: neither changes the time. Every measurement has a driver
process of its own; what is compared runs alternately, and the median of the ratios is told.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageFilter

from aft_ray.commands.environment import set_environment
from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import TeacherConfig

MODELS = {"small": ("mobilenetv3_small_050", 224, 8192), "large": ("vit_small_patch16_224", 224, 256)}
"""Model, pixels, pictures."""
ON_GPU = {
    "small": ("vit_small_patch16_224", 224, 49_152),
    "large": ("vit_large_patch16_224", 224, 49_152),
}
BATCH_SIZE = {"cpu": 32, "cuda": 256}
DISTINCT = 256
PICTURE = 320
SCALING_ACTORS = (1, 2, 4, 8, 16, 32)
MEMORY_SHARDS = ((100, 10_000), (1000, 10_000), (10_000, 10_000), (500, 500), (1000, 500), (4000, 500))
"""How many there are, and how many go through one pipeline."""
SLEEP_S = 8.0
"""A shard's time with a sleeping teacher: that of 256 pictures with DINOv2-g at 518 pixels on an RTX 4090 (facts: 35/s)."""
MIB = 2**20


class Sleeping:
    """A teacher that takes `sleep_s` per batch and has one feature; writes `pid start end` to `log`."""

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        self.options, self.feature_dim = config.options, 1

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        return TeacherDescription("image", ImageTransform(8), {})

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        started = time.time()
        time.sleep(self.options["sleep_s"])
        if "log" in self.options:
            with Path(self.options["log"]).open("a") as log:
                log.write(f"{os.getpid()} {started} {time.time()}\n")
        return torch.zeros(len(inputs), 1)


def write_pictures(root: Path, count: int, size: int) -> None:
    random = np.random.default_rng(0)
    for index in range(count):
        path = root / f"class{index % 2}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index >= DISTINCT:
            path.hardlink_to(root / f"class{index % 2}" / f"{index % DISTINCT:05d}.jpg")
            continue
        pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)).save(path, quality=85)


def write_recipe(path: Path, workspace: Path, pictures: Path, teachers: list[dict[str, Any]], rows: int) -> Path:
    dataset = {"source": "image_folder", "path": str(pictures), "samples_per_shard": rows}
    dataset |= {"validation_fraction": 0.05, "test_fraction": 0.001}
    content = {"workspace": str(workspace), "dataset": dataset, "teachers": teachers, "student": {"model": "tiny:cnn"}}
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def random_weights(model: str, folder: Path) -> str:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = folder / f"{model}.safetensors"
    save_file(timm.create_model(model).state_dict(), path)
    return str(path)


def child(*arguments: str, script: str = __file__) -> dict[str, Any]:
    """Runs one measurement in a process of its own; its last line is the result."""
    command = [sys.executable, script, *arguments]
    root = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join([root, str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# One measurement each, in a child process.


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
    """What one would write: a DataLoader with one worker that decodes, one model thread, torch.save at the end; for a GPU a
    worker on every other core, page-locked memory and bf16."""
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
    """Share of the actors' time spent on batches, from when all have begun until the last shard is begun."""
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
    """Peak resident memory, in MiB, of the driver above that after start-up, of a pipeline's process with its libraries, and
    of the objects in the store."""
    set_environment()
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address
    from ray._private.state import actors

    from aft_ray.extraction import extract as extraction
    from aft_ray.recipe.config import load

    extraction.ROUND = int(in_a_round)
    recipe = load(recipe_path)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    before, done = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, threading.Event()
    peak = {"object_store_mib": 0.0, "pipeline_mib": 0.0}

    def watch() -> None:
        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        while not done.wait(0.2):
            used = get_memory_info_reply(state).store_stats.object_store_bytes_used / MIB
            peak["object_store_mib"] = max(peak["object_store_mib"], used)
            for actor in actors().values():
                status = Path(f"/proc/{actor['Pid']}/status")
                if actor["ActorClassName"] == "Conductor" and actor["State"] == "ALIVE" and status.exists():
                    peak["pipeline_mib"] = max(
                        peak["pipeline_mib"], int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
                    )

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    extraction.extract(recipe, overwrite=True)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    driver = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"driver_mib": driver, "seconds": seconds, **peak}


# The benchmarks.


def teacher(name: str, folder: Path, device: str = "cpu") -> dict[str, Any]:
    model, _, _ = (MODELS if device == "cpu" else ON_GPU)[name]
    weights = random_weights(model, folder)
    on_gpu = {"num_gpus": 1, "precision": "bf16"} if device == "cuda" else {}
    return {"name": name, "model": f"timm:{model}", "weights": weights, "batch_size": BATCH_SIZE[device], **on_gpu}


def prepared(folder: Path, name: str, count: int, size: int, teachers: list[dict[str, Any]], rows: int) -> str:
    """A recipe whose samples are prepared."""
    from aft_ray.datasets.prepare import prepare
    from aft_ray.recipe.config import load

    pictures = folder / f"pictures{count}"
    if not pictures.exists():
        write_pictures(pictures, count, size)
    path = write_recipe(folder / f"{name}.yaml", folder / name, pictures, teachers, rows)
    prepare(load(path))
    return str(path)


def loop(folder: Path, repeats: int, device: str = "cpu") -> None:
    print(
        "| model | pipeline samples/s | plain loop samples/s | ratio | pipeline starts in | loop starts in | busy |\n"
        + "|---" * 7
        + "|"
    )
    for name, (model, _, count) in (MODELS if device == "cpu" else ON_GPU).items():
        rows = 32 if device == "cpu" and name == "large" else 512
        recipe = prepared(folder, name, count, PICTURE, [teacher(name, folder, device)], rows)
        pairs = [(child("measure_pipeline", recipe), child("measure_loop", recipe)) for _ in range(repeats)]
        ratio = statistics.median(ours["samples_per_s"] / theirs["samples_per_s"] for ours, theirs in pairs)
        ours, theirs = pairs[-1]
        print(
            f"| {model} | {ours['samples_per_s']:.1f} | {theirs['samples_per_s']:.1f} | {ratio:.2f} |"
            f" {ours['start_up_s']:.1f} s | {theirs['start_up_s']:.1f} s | {ours['busy']:.0%} |",
            flush=True,
        )


def together(folder: Path, repeats: int) -> None:
    count = MODELS["large"][2]
    teachers = [teacher("small", folder), teacher("large", folder)]
    both = prepared(folder, "both", count, PICTURE, teachers, 32)
    alone = [prepared(folder, f"only-{t['name']}", count, PICTURE, [t], 32) for t in teachers]
    for _ in range(repeats):
        one_pass = child("measure_pipeline", both)
        passes = [child("measure_pipeline", recipe) for recipe in alone]
        seconds = sum(result["seconds"] for result in passes)
        start_up = sum(result["start_up_s"] for result in passes)
        print(
            f"one pass {one_pass['seconds']:.1f} s ({one_pass['start_up_s']:.1f} s of it start-up), one after the other"
            f" {seconds:.1f} s ({start_up:.1f} s): ratio {one_pass['seconds'] / seconds:.2f}",
            flush=True,
        )


def scaling(folder: Path, repeats: int) -> None:
    print("| actors | efficiency | seconds observed |\n|---|---|---|")
    for actors in SCALING_ACTORS:
        shards = max(24, 6 * actors)
        sleeping = {
            "name": "sleeping",
            "model": "extraction:Sleeping",
            "batch_size": 4,
            "num_actors": actors,
            "num_gpus": 1,
        }
        options = {"sleep_s": SLEEP_S if actors > 4 else 2.0, "log": str(folder / f"scaling{actors}.log")}
        recipe = prepared(folder, f"scaling{actors}", 4 * shards, 16, [{**sleeping, "options": options}], 4)
        found = child("measure_scaling", recipe, str(actors))
        print(f"| {found['actors']} | {found['efficiency']:.3f} | {found['window_s']:.0f} |", flush=True)


def memory(folder: Path, repeats: int) -> None:
    """As it is, and with rounds so small that what is left after many of them shows."""
    print("| shards | in rounds of | driver MiB | pipeline MiB | object store MiB | shards/s |\n" + "|---" * 6 + "|")
    for shards, in_a_round in MEMORY_SHARDS:
        sleeping = {"name": "sleeping", "model": "extraction:Sleeping", "options": {"sleep_s": 0}}
        recipe = prepared(folder, f"memory{shards}", shards, 16, [sleeping], 1)
        found = child("measure_memory", recipe, str(in_a_round))
        cells = [
            str(shards),
            str(in_a_round),
            *(f"{found[f'{name}_mib']:.0f}" for name in ("driver", "pipeline", "object_store")),
        ]
        print("| " + " | ".join([*cells, f"{shards / found['seconds']:.0f}"]) + " |", flush=True)


def read(folder: Path, repeats: int) -> None:
    from aft_ray.store.parquet import features_table
    from aft_ray.store.schema import samples_schema
    from aft_ray.store.shards import samples_fingerprint
    from aft_ray.store.side_by_side import open_store
    from aft_ray.store.workspace import Workspace

    rows, width, shards = 512, 1536, 16
    workspace = Workspace.at(folder / "read")
    ids = [f"s{row:06d}" for row in range(rows)]
    samples = pa.table([ids, [0] * rows, [b"x" * 20_000] * rows], schema=samples_schema("image"))
    for shard in range(shards):
        workspace.samples("train").write_shard(shard, samples, {})
    manifest = workspace.samples("train").write_manifest(shards, {}, classes=["a"], modality="image")
    fingerprint = {"samples": samples_fingerprint(manifest)}
    features = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    print("| stored as | as float32 (n, T), GB/s | as stored, GB/s | pyarrow's read_table, GB/s |\n|---|---|---|---|")
    for dtype in ("float16", "float32"):
        directory = workspace.features(dtype, "train")
        for shard in range(shards):
            directory.write_shard(shard, features_table(ids, features, dtype), fingerprint)
        directory.write_manifest(shards, fingerprint, feature_dim=width)
        store = open_store(workspace, "train", [dtype])
        size = np.dtype(dtype).itemsize
        side_by_side = best_s(lambda store=store: [store.read_shard(k, ()) for k in range(shards)])
        stored = best_s(lambda store=store: [touch(store.read_shard(k, (), side_by_side=False)) for k in range(shards)])
        plain = best_s(lambda directory=directory: [directory.read_shard(k) for k in range(shards)])
        count = rows * width * shards / 1e9
        print(
            f"| {dtype} | {4 * count / side_by_side:.2f} | {size * count / stored:.2f} | {size * count / plain:.2f} |"
        )


def touch(shard: dict[str, Any]) -> int:
    """Reads every byte, so that a view of the file costs what it must."""
    return int(shard["features"][0].view(np.uint8).reshape(-1).view(np.uint64).sum())


def best_s(act: Any) -> float:
    return min(timed(act) for _ in range(5))


def timed(act: Any) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


BENCHMARKS = {function.__name__: function for function in (loop, together, scaling, memory, read)}


def main() -> None:
    if sys.argv[1:] and sys.argv[1].startswith("measure_"):
        print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the loop")
    arguments = parser.parse_args()
    chosen: Iterator[str] = iter(BENCHMARKS if arguments.benchmark == "all" else [arguments.benchmark])
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, str(Path(__file__).parent))
        for name in chosen:
            print(f"\n{name}", flush=True)
            more = {"device": arguments.device} if name == "loop" else {}
            BENCHMARKS[name](Path(folder), arguments.repeats, **more)


if __name__ == "__main__":
    main()
