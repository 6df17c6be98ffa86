"""The cost model of docs/scaling.md: its measured constants, its predictions, and a simulation that checks it.

    python jobs/benchmarks/scaling.py constants > constants.json    seconds and bytes, measured on this machine
    python jobs/benchmarks/scaling.py predict constants.json        the tables for 8, 64 and 512 GPUs
    python jobs/benchmarks/scaling.py simulate                      sleeping teachers on fake GPUs: predicted and measured
    python jobs/benchmarks/scaling.py ranges                        one, two and four ranges side by side in one cluster

A stage takes as long as its slowest part, since all work side by side: GPUs, CPUs, network, storage, and the process that
drives the pipeline. Speeds of teachers on GPUs are published, not measured: see PUBLISHED.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter

from aft_ray.commands.environment import set_environment
from aft_ray.models.images import ImageTransform, decode
from aft_ray.store.parquet import features_table
from aft_ray.store.shards import MANIFEST
from aft_ray.store.workspace import Workspace
from jobs.benchmarks.child import child
from jobs.benchmarks.extraction_made import SLEEPING, prepared, write_pictures, write_recipe

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

PUBLISHED = {"dinov2-g": (35.02, 518, 1536), "bit-101x3": (152.4, 448, 6144), "clip-g": (258.64, 224, 1408)}
"""Samples/s of one RTX 4090 (timm's benchmark-infer-amp table, AMP), pixels, width of the features."""
STUDENT_PER_S = 8214.74 / 3
"""vit_small_patch16_224 on the same card: published for inference; a training step counts as three forward passes."""
PICTURE_BYTES = 110_000
"""Of an ImageNet JPEG, on average."""
GPUS_PER_NODE, CPUS_PER_GPU, NETWORK_BYTES_PER_S, STORAGE_BYTES_PER_S = 8, 8, 3.1e9, 1e9
"""Assumed. A node has a network of 25 Gbit/s and storage of 1 GB/s (published for NVMe and embedding-reader)."""
EPOCHS = 5
"""Epochs of a trial, which a recipe sets."""
SHARD_SAMPLES = 305
"""Pictures of this size in the 32 MiB of a shard."""


def median_s(act: Any, repeats: int = 30) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


# Constants.


def constants(folder: Path) -> dict[str, float]:
    random = np.random.default_rng(0)
    path = folder / "picture.jpg"
    noise = Image.fromarray(random.integers(0, 256, (375, 500, 3), dtype=np.uint8))
    noise.filter(ImageFilter.GaussianBlur(1)).save(path, quality=93)
    content = path.read_bytes()
    picture = decode(content)
    found: dict[str, float] = {"picture_bytes": len(content), "decode_s": median_s(lambda: decode(content))}
    for size in (224, 448, 518):
        transform = ImageTransform(size)
        found[f"crop_{size}_s"] = median_s(lambda transform=transform: transform.crop(picture))
    found |= _bytes_on_disk(folder, random)
    few, many = (child_of_ours("measure_prepare", str(count)) for count in (2_000, 100_000))
    for key in ("seconds", "bytes"):
        found[f"prepare_{key}_per_sample"] = (many[key] - few[key]) / 98_000
    rows = [
        child_of_ours("measure_shards", str(shards), str(teachers)) for teachers in (1, 2) for shards in (200, 1000)
    ]
    for teachers, (small, large) in enumerate((rows[:2], rows[2:]), 1):
        found[f"shard_s_{teachers}_teachers"] = (large["seconds"] - small["seconds"]) / 800
    return found


def _bytes_on_disk(folder: Path, random: np.random.Generator) -> dict[str, float]:
    directory, width = Workspace.at(folder / "bytes").features("teacher", "train"), 1024
    features = random.normal(size=(SHARD_SAMPLES, width)).astype(np.float32)
    for shard in range(50):
        ids = [f"n01440764/n01440764_{shard * SHARD_SAMPLES + row:07d}.JPEG" for row in range(SHARD_SAMPLES)]
        directory.write_shard(shard, features_table(ids, features), {})
    directory.write_manifest(50, {}, feature_dim=width)
    sizes = directory.sizes()
    return {
        "feature_overhead_bytes": sizes["part-00000.parquet"] / SHARD_SAMPLES - 2 * width,
        "manifest_bytes_per_shard": sizes[MANIFEST] / 50,
    }


def child_of_ours(*arguments: str) -> dict[str, Any]:
    return child(__file__, *arguments)


def measure_prepare(count: str) -> dict[str, float]:
    """Wall seconds of `prepare` and the rise of its peak memory, with pictures of no size worth naming."""
    from aft_ray.datasets.prepare import prepare
    from aft_ray.recipe.config import load

    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "pictures", int(count), 16)
        recipe = write_recipe(Path(folder) / "r.yaml", Path(folder) / "work", Path(folder) / "pictures", [], 305)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        prepare(load(recipe))
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)}


def measure_shards(shards: str, teachers: str) -> dict[str, float]:
    """Wall seconds of an extraction whose teachers take no time: the time of the process that runs the pipeline."""
    set_environment()
    import ray

    from aft_ray.extraction.extract import extract
    from aft_ray.recipe.config import load

    with tempfile.TemporaryDirectory() as folder:
        sleeping = [sleeper(f"t{number}", 0.0, 1) for number in range(int(teachers))]
        recipe = load(prepared(Path(folder), "work", int(shards), 16, sleeping, 1))
        ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
        started = time.perf_counter()
        extract(recipe)
        return {"seconds": time.perf_counter() - started}


def sleeper(name: str, sleep_s: float, actors: int, **options: Any) -> dict[str, Any]:
    common = {"model": SLEEPING, "batch_size": 512, "num_gpus": 1}
    return {"name": name, **common, "num_actors": actors, "options": {"sleep_s": sleep_s, **options}}


# Predictions.


@dataclass(frozen=True)
class Costs:
    """Seconds of each thing that works beside the others, for one stage."""

    gpus: float
    cpus: float
    network: float
    storage: float
    pipeline: float

    @property
    def first(self) -> str:
        """The bottleneck."""
        return max(vars(self), key=lambda name: getattr(self, name))


def extraction_costs(measured: dict[str, float], samples: float, gpus: int, pipelines: int = 1) -> Costs:
    """All of PUBLISHED's teachers in one pass; pools sized to their cost, so that the GPUs finish together."""
    nodes, rows = max(1, gpus // GPUS_PER_NODE), samples / SHARD_SAMPLES
    crops = [3 * size**2 for _, size, _ in PUBLISHED.values()]
    travels = sum(sum(crops[number:]) for number in range(len(crops)))  # a row gets lighter with each teacher
    cpu_s = measured["decode_s"] + sum(measured[f"crop_{size}_s"] for _, size, _ in PUBLISHED.values())
    two, one = (measured[f"shard_s_{teachers}_teachers"] for teachers in (2, 1))
    return Costs(
        gpus=samples * sum(1 / speed for speed, _, _ in PUBLISHED.values()) / gpus,
        cpus=samples * cpu_s / (gpus * (CPUS_PER_GPU - 1)),  # one CPU of each GPU's share feeds its actor
        network=samples * travels / (nodes * NETWORK_BYTES_PER_S),
        storage=samples * PICTURE_BYTES / (nodes * STORAGE_BYTES_PER_S),
        pipeline=rows * (one + (len(PUBLISHED) - 1) * max(0.0, two - one)) / pipelines,
    )


def search_costs(measured: dict[str, float], samples: float, trials: int, gpus: int) -> Costs:
    """Trials on a GPU each, their pictures decoded while they train."""
    nodes, seen = max(1, gpus // GPUS_PER_NODE), trials * EPOCHS * samples
    feature_bytes = sum(2 * width for _, _, width in PUBLISHED.values())
    return Costs(
        gpus=seen / STUDENT_PER_S / gpus,
        cpus=seen * (measured["decode_s"] + measured["crop_224_s"]) / (gpus * CPUS_PER_GPU),
        network=0.0,
        storage=seen * (PICTURE_BYTES + feature_bytes) / (nodes * STORAGE_BYTES_PER_S),
        pipeline=0.0,
    )


def predict(measured: dict[str, float]) -> None:
    print("| work | GPUs | GPU h | GPUs, h | CPUs, h | network, h | storage, h | pipeline, h | first bottleneck |")
    print("|---" * 9 + "|")
    for what, costs, gpus in (
        ("ImageNet, 3 teachers", extraction_costs(measured, 1_331_167, 8), 8),
        ("ImageNet, 3 teachers", extraction_costs(measured, 1_331_167, 64), 64),
        ("ImageNet, 200 trials", search_costs(measured, 1_281_167, 200, 8), 8),
        ("ImageNet, 200 trials", search_costs(measured, 1_281_167, 200, 64), 64),
        ("1e9 pictures, 3 teachers", extraction_costs(measured, 1e9, 512), 512),
        ("1e9 pictures, 3 teachers, 64 ranges", extraction_costs(measured, 1e9, 512, 64), 512),
    ):
        hours = [f"{seconds / 3600:.2f}" for seconds in vars(costs).values()]
        print(f"| {what} | {gpus} | {costs.gpus * gpus / 3600:.0f} | {' | '.join(hours)} | {costs.first} |")
    print("\n| of prepare and the store | ImageNet | 1e9 pictures |\n|---|---|---|")
    lines = {
        "prepare, one process, h": lambda n: n * measured["prepare_seconds_per_sample"] / 3600,
        "prepare's memory, GB": lambda n: n * measured["prepare_bytes_per_sample"] / 1e9,
        "shards of each directory": lambda n: n / SHARD_SAMPLES,
        "a manifest, MB": lambda n: n / SHARD_SAMPLES * measured["manifest_bytes_per_shard"] / 1e6,
        "samples on disk, GB": lambda n: n * PICTURE_BYTES / 1e9,
        "features on disk, GB": lambda n: (
            n * sum(2 * width + measured["feature_overhead_bytes"] for _, _, width in PUBLISHED.values()) / 1e9
        ),
        "decoded for the student (224 px), GB": lambda n: n * 3 * 224**2 / 1e9,
    }
    for name, amount in lines.items():
        print(f"| {name} | {shown(amount(1_331_167))} | {shown(amount(1e9))} |")


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


# The simulation.

CASES = {
    "one pool": ([(1.0, 4)], 120),
    "one larger pool": ([(2.0, 12)], 160),
    "two pools, the second slower": ([(1.0, 4), (1.0, 2)], 80),
    "two pools, the first slower": ([(2.0, 4), (0.5, 2)], 80),
    "short shards": ([(0.1, 4)], 600),
}
"""Seconds per shard and actors of each teacher, in the order of the pipeline; shards."""


def simulate(folder: Path) -> None:
    print("| case | pools (s x actors) | predicted shards/s | measured | ratio |\n|---|---|---|---|---|")
    for name, (pools, shards) in CASES.items():
        slug = name.replace(" ", "-").replace(",", "")
        logs = [str(folder / f"{slug}-{number}.log") for number in range(len(pools))]
        teachers = [
            sleeper(f"t{number}", seconds, actors, log=log)
            for number, ((seconds, actors), log) in enumerate(zip(pools, logs, strict=True))
        ]
        recipe = prepared(folder, slug, shards, 16, teachers, 1)
        predicted = min(actors / seconds for seconds, actors in pools)
        found = child_of_ours("measure_simulation", recipe, str(sum(actors for _, actors in pools)), logs[-1])
        sizes = ", ".join(f"{seconds:g} x {actors}" for seconds, actors in pools)
        speed = found["shards_per_s"]
        print(f"| {name} | {sizes} | {predicted:.2f} | {speed:.2f} | {speed / predicted:.2f} |", flush=True)


def measure_simulation(recipe_path: str, gpus: str, log: str) -> dict[str, float]:
    """Shards per second of the last pool."""
    cluster = _nodes(3, -(-int(gpus) // 3), 2)
    import ray

    from aft_ray.extraction.extract import extract
    from aft_ray.recipe.config import load

    ray.init(address=cluster.address, log_to_driver=False)
    extract(load(recipe_path))
    ray.shutdown()
    cluster.shutdown()
    return {"shards_per_s": _speed(log)}


def _nodes(count: int, gpus: int, readers: int) -> Cluster:
    """A local cluster of nodes with so many fake GPUs each, and CPUs for them and for readers."""
    set_environment()
    from ray.cluster_utils import Cluster

    node = {"num_cpus": gpus + readers, "num_gpus": gpus, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(count - 1):
        cluster.add_node(**node)
    return cluster


def _speed(log: str) -> float:
    """Shards per second from when all actors have begun until one has nothing more to begin."""
    calls = [(pid, float(start), float(end)) for pid, start, end in map(str.split, Path(log).read_text().splitlines())]
    pids = {pid for pid, _, _ in calls}
    first = max(min(start for other, start, _ in calls if other == pid) for pid in pids)
    last = min(max(end for other, _, end in calls if other == pid) for pid in pids)
    return sum(max(0.0, min(end, last) - max(start, first)) / (end - start) for _, start, end in calls) / (last - first)


# Ranges side by side in one cluster.

SECONDS, SHARDS = 0.5, 150
"""Of each range: seconds that its teacher's one actor takes for a shard, shards."""


def ranges(folder: Path) -> None:
    print("| ranges | predicted shards/s | measured | ratio |\n|---|---|---|---|")
    for count in (1, 2, 4):
        log = str(folder / f"ranges-{count}.log")
        recipe = prepared(folder, f"ranges-{count}", SHARDS * count, 16, [sleeper("t", SECONDS, 1, log=log)], 1)
        predicted = count / SECONDS
        speed = child_of_ours("measure_ranges", recipe, str(count), log)["shards_per_s"]
        print(f"| {count} | {predicted:.2f} | {speed:.2f} | {speed / predicted:.2f} |", flush=True)


def measure_ranges(recipe_path: str, count: str, log: str) -> dict[str, float]:
    """Shards per second of all ranges, each a command of its own; a node has room for one."""
    cluster = _nodes(int(count), 1, 1)
    command = [sys.executable, "-m", "aft_ray.cli", "extract", recipe_path, "--range"]
    own = {**os.environ, "RAY_ADDRESS": cluster.address}
    started = [
        subprocess.Popen([*command, f"{number}/{count}"], env=own, stdout=subprocess.DEVNULL)
        for number in range(int(count))
    ]
    if any([process.wait() for process in started]):
        raise SystemExit("a range has failed")
    cluster.shutdown()
    return {"shards_per_s": _speed(log)}


def main() -> None:
    command, *arguments = sys.argv[1:] or ["-h"]
    if command.startswith("measure_"):
        print(json.dumps(globals()[command](*arguments)))
    elif command == "predict":
        predict(json.loads(Path(arguments[0]).read_text()))
    elif command in ("constants", "simulate", "ranges"):
        with tempfile.TemporaryDirectory() as folder:
            if found := globals()[command](Path(folder)):
                print(json.dumps(found, indent=1))
    else:
        print(__doc__)


if __name__ == "__main__":
    main()
