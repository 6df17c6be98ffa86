"""Our trainer against a plain PyTorch script with a DataLoader, on the same model, batches and threads.

    python jobs/benchmarks/training.py                       everything: about half an hour on two cores
    python jobs/benchmarks/training.py --only plain --quick  some cases, few steps
    python jobs/benchmarks/training.py --device cuda         on one GPU, so one worker, and without the command

Cases, each in separate processes: `fit` without Ray and `aft-ray train` at 1 and 2 workers, both against the script with as
many; `fit` with stored features against the script that runs the teacher online; AFT's overhead in the step of a large
student; seconds from the command to the first step; share of the time spent waiting for input; memory.
Samples per second ignore each run's first evaluation interval. Images are made and weights random: only time is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aft_ray.regularizers.base import Scope
from jobs.benchmarks.training_ours import run_command, run_fit
from jobs.benchmarks.training_plain import run_plain, run_teacher
from jobs.benchmarks.training_processes import in_processes
from jobs.benchmarks.training_setting import Measured, Setting

TARGETS = {"aft_overhead": 0.03}


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
        """AFT's overhead in a step, with features and gates: measured on a student so small that it stands out from the noise,
        and printed as a share of the large student's step."""
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
    parser.add_argument("--steps", type=int, help="steps between two of the four evaluations")
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
