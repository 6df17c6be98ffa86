"""Our trainer against a plain PyTorch script with a DataLoader, on the same model, batches and threads.

    python jobs/benchmarks/training.py                       everything: about half an hour on two cores
    python jobs/benchmarks/training.py --only plain --quick  some cases, few steps
    python jobs/benchmarks/training.py --device cuda         on one GPU, so one worker, and without the command

Cases, each in processes of its own: `fit` without Ray and `aft-ray train` at 1 and 2 workers, both against the script at as
many; `fit` with the teacher's features stored against the script that runs the teacher online; what aft adds
to the step of a large student; seconds from the command to the first step; share of the time spent waiting for input; memory.
Samples per second leave out each run's first evaluation interval. Made images and random weights: only time is measured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from aft_ray.models.students import build_student
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.regularizers.base import Scope
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from aft_ray.training.inputs.batches import Split
from aft_ray.training.inputs.data import Data
from jobs.benchmarks.made_store import made_store

MIB = 2**20
TEACHER_DIM = 3072
TARGETS = {"aft_overhead": 0.03}


@dataclass(frozen=True)
class Setting:
    """What is timed. dim: width of the stored features. image: pixels per side."""

    student: str
    image: int
    batch: int
    steps: int
    samples: int
    method: str = "aft"
    workers: int = 1
    scope: Scope = "global"
    dim: int = TEACHER_DIM
    teacher: str = ""
    device: str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True)
class Measured:
    """samples_per_s: after the first interval. memory_mib: largest resident set of a worker."""

    samples_per_s: float
    memory_mib: float
    input_wait: float | None = None
    first_step_s: float | None = None


# ---- the same data for all --------------------------------------------------------------------------------------------


def made_data(setting: Setting) -> Data:
    random = np.random.default_rng(0)

    def split(size: int) -> Split:
        return Split(
            sample_ids=np.array([f"s{index}" for index in range(size)]),
            labels=random.integers(0, 10, size),
            inputs=random.integers(0, 255, (size, setting.image, setting.image, 3), np.uint8),
            features={"teacher": random.normal(size=(size, setting.dim)).astype(np.float16)},
            classes=tuple("abcdefghij"),
        )

    return Data(split(setting.samples), split(64), split(64))


def recipe(setting: Setting, workspace: str = "unused") -> Recipe:
    """Evaluations are four: one to warm up, three to measure."""
    scope = {"scope": setting.scope} if setting.method == "aft" else {}
    return Recipe.model_validate(
        {
            "workspace": workspace,
            "dataset": {"name": "mnist5k"},
            "teachers": [{"name": "teacher", "model": "timm:teacher"}],
            "student": {"model": setting.student, "image_size": setting.image},
            "regularizer": {"name": setting.method, **scope},
            "train": {
                "steps": 4 * setting.steps,
                "evaluate_every": setting.steps,
                "global_batch_size": setting.batch,
                "num_workers": setting.workers,
                "streaming": False,
                "use_gpu": setting.device == "cuda",
                "precision": setting.precision,
            },
        }
    )


# ---- ours -------------------------------------------------------------------------------------------------------------


def run_fit(setting: Setting, rank: int, folder: str) -> Measured:
    """`fit` without Ray, as one worker of a gloo group."""
    with group(setting, rank, folder):
        history = fit(
            recipe(setting),
            made_data(setting),
            directory=Workspace.at(f"{folder}/run"),
            report=lambda metrics, state: None,
            evaluate_test=False,
        )
    return Measured(*measured_of(history))


def measured_of(history: list[dict[str, Any]]) -> tuple[float, float, float]:
    later = history[1:]
    speed = statistics.median(line["samples_per_s"] for line in later)
    return speed, peak_mib(), statistics.mean(line["input_wait"] for line in later)


# ---- a plain script ---------------------------------------------------------------------------------------------------


class Images(Dataset[Any]):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, np.ndarray]:
        assert isinstance(self.split.inputs, np.ndarray)
        return self.split.inputs[index], self.split.labels[index], self.split.features["teacher"][index]


def run_plain(setting: Setting, rank: int, folder: str) -> Measured:
    """A DataLoader in this process, a student under DDP, Adam and the AFT loss written from the paper.

    With `scope="worker"` each worker compares the kernels of its own rows, as a script does that is run under DDP as it is;
    with "global" all rows are gathered by what torch has for it. With a teacher it runs on the batch's images without a
    gradient in place of the stored features.
    """
    with group(setting, rank, folder):
        given = recipe(setting)
        torch.manual_seed(0)
        student: torch.nn.Module = build_student(given.student, 10).to(setting.device)
        if setting.workers > 1:
            student = DistributedDataParallel(student)
        gates = torch.nn.Parameter(torch.zeros(setting.dim, device=setting.device))
        optimizer = torch.optim.Adam([{"params": student.parameters(), "lr": 1e-3}, {"params": [gates], "lr": 1e-2}])
        teacher = make_teacher(setting) if setting.teacher else None
        train = made_data(setting).train
        assert isinstance(train, Split)
        images = Images(train)
        sampler: DistributedSampler[Any] = DistributedSampler(images, setting.workers, rank, seed=0)
        size = setting.batch // setting.workers
        on_gpu = {"num_workers": 4, "persistent_workers": True, "pin_memory": True}
        more: dict[str, Any] = on_gpu if setting.device == "cuda" else {}
        loader = DataLoader(images, size, sampler=sampler, drop_last=True, **more)
        autocast = torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16")
        stamps = []
        for step, (inputs, labels, features) in enumerate(endless(loader, sampler)):
            if step % setting.steps == 0:
                finish(setting.device)
                stamps.append(time.perf_counter())
                if step == 4 * setting.steps:
                    break
            inputs, labels, features = (x.to(setting.device, non_blocking=True) for x in (inputs, labels, features))
            with autocast:
                if teacher is not None:
                    features = teacher(inputs)
                logits, own = student(inputs)
            loss = cross_entropy(logits.float(), labels)
            if setting.method == "aft":
                features = features.float()
                if setting.workers > 1 and setting.scope == "global":
                    own, features = (torch.cat(all_gather(x)) for x in (own, features))
                difference = kernel(own.float()) - kernel(features * gates.sigmoid())
                loss = loss + 10 * difference.square().mean().add(1e-8).sqrt()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    intervals = [end - start for start, end in zip(stamps[1:], stamps[2:], strict=False)]
    return Measured(setting.steps * setting.batch / statistics.median(intervals), peak_mib())


def run_teacher(setting: Setting, rank: int, folder: str) -> Measured:
    """The teacher on one batch after the other, as extraction runs it."""
    train = made_data(setting).train
    assert isinstance(train, Split)
    loader = DataLoader(Images(train), setting.batch)
    teacher = make_teacher(setting)
    stamps = [time.perf_counter()]
    for inputs, _, _ in loader:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16"):
            teacher(inputs.to(setting.device))
        finish(setting.device)
        stamps.append(time.perf_counter())
    intervals = [end - start for start, end in zip(stamps[1:], stamps[2:], strict=False)]
    return Measured(setting.batch / statistics.median(intervals), peak_mib())


def kernel(features: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(features - features.mean(0))
    return unit @ unit.T


def endless(loader: DataLoader[Any], sampler: DistributedSampler[Any]) -> Iterator[Any]:
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def make_teacher(setting: Setting) -> Callable[[torch.Tensor], torch.Tensor]:
    import timm

    model = timm.create_model(setting.teacher, num_classes=0, img_size=setting.image).eval().to(setting.device)

    @torch.no_grad()
    def run(images: torch.Tensor) -> torch.Tensor:
        return model(images.permute(0, 3, 1, 2).float().div(255))

    return run


# ---- the command ------------------------------------------------------------------------------------------------------


def run_command(setting: Setting) -> Measured:
    """`aft-ray train` on a workspace made for it; first_step_s: from its start to its first step."""
    with tempfile.TemporaryDirectory() as folder:
        data = made_data(setting)
        given = override(recipe(setting, folder), {"teachers": [], "regularizer.name": "none"})
        given = override(given, {"train.evaluate_every": 1, "train.steps": 3})
        for name in ("train", "validation", "test"):
            made_store(Path(folder), name, getattr(data, name), 512)
        first, _ = timed_command(given, folder)
        given = override(
            given, {"run": "long", "train.steps": 4 * setting.steps, "train.evaluate_every": setting.steps}
        )
        _, memory = timed_command(given, folder)
        history = [json.loads(line) for line in Path(folder, "runs", "long", "metrics.jsonl").read_text().splitlines()]
        speed, _, wait = measured_of(history)
    return Measured(speed, memory, wait, first)


def timed_command(given: Recipe, folder: str) -> tuple[float, float]:
    """Runs `aft-ray train`. Seconds to its first evaluation, and the largest resident set of a worker in MiB (on Linux)."""
    recipe_file = Path(folder, "recipe.yaml")
    recipe_file.write_text(dump(given))
    started = time.perf_counter()
    command = subprocess.Popen(
        [sys.executable, "-m", "aft_ray.cli", "train", str(recipe_file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = Path(folder, "runs", given.run, "metrics.jsonl")
    seen, memory = None, 0.0
    while command.poll() is None:
        if seen is None and metrics.exists():
            seen = time.perf_counter() - started
        memory = max(memory, *(resident_mib(pid) for pid in Path("/proc").glob("[0-9]*")), 0.0)
        time.sleep(0.1)
    if command.returncode:
        raise RuntimeError(f"aft-ray train ended with {command.returncode}")
    return seen or time.perf_counter() - started, memory


def resident_mib(process: Path) -> float:
    """The largest resident set so far of a process in /proc that is a Ray Train worker; 0 for any other."""
    try:
        if not process.joinpath("cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
            return 0.0
        lines = dict(line.split(":", 1) for line in process.joinpath("status").read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    except (OSError, KeyError):
        return 0.0


# ---- measuring --------------------------------------------------------------------------------------------------------


@contextmanager
def group(setting: Setting, rank: int, folder: str) -> Iterator[None]:
    """A gloo process group of the setting's workers, where there are several."""
    if setting.workers == 1:
        yield
        return
    store = Path(folder, "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=setting.workers)
    yield
    dist.destroy_process_group()


def finish(device: str) -> None:
    """Waits for what a GPU was told to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_mib() -> float:
    """Of this process; of the device's memory if it has used a GPU."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def worker(function: Callable[..., Measured], setting: Setting, rank: int, folder: str, threads: int) -> Measured:
    torch.set_num_threads(threads)
    return function(setting, rank, folder)


def in_processes(function: Callable[..., Measured], setting: Setting, threads: int) -> Measured:
    """What the slowest of the setting's workers measured; each has a process of its own, with `threads` threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "timm", "aft_ray.training.fit"])
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(setting.workers, context) as pool:
        calls = [pool.submit(worker, function, setting, rank, folder, threads) for rank in range(setting.workers)]
        found = [call.result() for call in calls]
    slowest = min(found, key=lambda measured: measured.samples_per_s)
    return replace(slowest, memory_mib=max(measured.memory_mib for measured in found))


# ---- the cases --------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The rows of the table as they are measured."""

    threads: int
    repeats: int
    rows: list[dict[str, Any]]

    def add(self, case: str, trainer: str, setting: Setting, measured: Measured) -> Measured:
        row = {"case": case, "trainer": trainer, **asdict(setting), **asdict(measured)}
        self.rows.append(row)
        optional = (measured.input_wait, "{:.2%}"), (measured.first_step_s, "{:.1f}")
        scope = setting.scope if setting.workers > 1 and setting.method == "aft" else ""
        cells = [case, trainer, str(setting.workers), scope]
        cells += [f"{measured.samples_per_s:.1f}", f"{measured.memory_mib:.0f}"]
        cells += ["" if value is None else form.format(value) for value, form in optional]
        print("| " + " | ".join(cells) + " |", flush=True)
        return measured

    def plain(self, setting: Setting) -> None:
        """Against the script that computes the same, in turn; then the command alone."""
        layouts: list[tuple[int, Scope]] = [(1, "global"), (2, "worker"), (2, "global")]
        for workers, scope in layouts[:1] if setting.device == "cuda" else layouts:
            own = replace(setting, workers=workers, scope=scope)
            ratios = []
            for _ in range(self.repeats):
                ours = self.add("plain", "fit", own, in_processes(run_fit, own, self.threads))
                theirs = self.add("plain", "script", own, in_processes(run_plain, own, self.threads))
                ratios.append(ours.samples_per_s / theirs.samples_per_s)
            told = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
            median = statistics.median(ratios)
            print(f"  fit / script at {workers}, scope {scope}: {told}; median {median:.2f} (target: at least 1)")
        for workers in () if setting.device == "cuda" else (1, 2):
            alone = replace(setting, workers=workers, method="none")
            self.add("plain", "aft-ray train", alone, run_command(alone))

    def online(self, setting: Setting) -> None:
        """Features stored, which takes one pass of the teacher, against the teacher run in every step."""
        stored = self.add("online", "fit, stored", setting, in_processes(run_fit, setting, self.threads))
        theirs = self.add("online", "script, online", setting, in_processes(run_plain, setting, self.threads))
        once = self.add("online", "teacher alone", setting, in_processes(run_teacher, setting, self.threads))
        print(f"  stored / online: {stored.samples_per_s / theirs.samples_per_s:.1f}")
        for epochs in (1, 2, 5, 20, 100):
            with_stored = 1 / once.samples_per_s + epochs / stored.samples_per_s
            online = epochs / theirs.samples_per_s
            told = f"{1e3 * with_stored:.0f} s with extraction, {1e3 * online:.0f} s online"
            print(f"  {epochs} epochs of 1,000 samples: {told}, {with_stored / online:.2f} of it")

    def overhead(self, setting: Setting) -> None:
        """What aft adds to a step, with features and gates: seen with a student so small that it does not drown in the noise
        of the student's own step, and told as a share of the large student's."""
        large = self.add("overhead", "none", setting, in_processes(run_fit, setting, self.threads))
        if setting.device == "cuda":
            with_aft = replace(setting, method="aft")
            self.add("overhead", "aft", with_aft, in_processes(run_fit, with_aft, self.threads))
        small = replace(setting, student="tiny:cnn", image=28, samples=5000, steps=60)
        added = []
        for _ in range(self.repeats):
            both = [replace(small, method=method) for method in ("none", "aft")]
            none, aft = (
                self.add("overhead", own.method, own, in_processes(run_fit, own, self.threads)) for own in both
            )
            added.append(both[0].batch / aft.samples_per_s - both[0].batch / none.samples_per_s)
        step, median = setting.batch / large.samples_per_s, statistics.median(added)
        told = ", ".join(f"{1e3 * seconds:.2f}" for seconds in sorted(added))
        print(f"  aft adds {told} ms to a step; the large student's takes {step:.4g} s without it")
        print(f"  median {median / step:.3%} of it (target: at most {TARGETS['aft_overhead']:.0%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="cases to run")
    parser.add_argument("--quick", action="store_true", help="tiny batches and models: shows that everything runs")
    parser.add_argument("--steps", type=int, help="steps between two evaluations, of which there are four")
    parser.add_argument("--threads", type=int, default=1, help="threads of every worker")
    parser.add_argument("--repeats", type=int, default=3, help="of the comparison with the script")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--output", help="also write the rows as JSON to this file")
    arguments = parser.parse_args()
    print(f"$ python {shlex.join(sys.argv)}")
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()} CPU"
    print(f"torch {torch.__version__}, {arguments.threads} threads, {os.cpu_count()} cores, {device}\n")
    header = ["case", "trainer", "workers", "scope", "samples/s", "MiB per worker", "input wait", "s to first step"]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header), flush=True)
    bench = Bench(arguments.threads, arguments.repeats, [])
    for case in arguments.only:
        known = QUICK if arguments.quick else CASES if arguments.device == "cpu" else ON_GPU
        setting = replace(known[case], device=arguments.device, precision=arguments.precision)
        if arguments.steps:
            setting = replace(setting, steps=arguments.steps)
        getattr(bench, case)(setting)
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(bench.rows, indent=1))


SMALL, LARGE = "timm:mobilenetv3_small_050", "timm:vit_small_patch16_224"
CASES = {
    "plain": Setting("tiny:cnn", image=28, batch=128, steps=100, samples=5000),
    "online": Setting(SMALL, image=96, batch=64, steps=4, samples=512, dim=384, teacher="vit_small_patch16_224"),
    "overhead": Setting(LARGE, image=224, batch=128, steps=1, samples=256, method="none"),
}
ON_GPU = {
    "plain": replace(CASES["plain"], samples=50_000, steps=300),
    "online": replace(CASES["online"], image=224, batch=256, steps=10, samples=2048),
    "overhead": replace(CASES["overhead"], steps=30, samples=1024),
}
QUICK = {
    "plain": Setting("tiny:cnn", image=28, batch=16, steps=3, samples=64, dim=32),
    "online": Setting(SMALL, image=32, batch=4, steps=1, samples=16, dim=192, teacher="vit_tiny_patch16_224"),
    "overhead": Setting("timm:vit_tiny_patch16_224", image=32, batch=4, steps=1, samples=16, method="none"),
}

if __name__ == "__main__":
    main()
