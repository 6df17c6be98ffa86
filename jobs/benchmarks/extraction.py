"""Extraction against a plain loop, its scaling over actors, and its memory over shards.

    python jobs/benchmarks/extraction.py loop      samples/s against decoding + model in one script, start-up apart
                                         (--device cuda: with bf16 on a GPU, decoding on all other cores)
    python jobs/benchmarks/extraction.py together  two teachers in one pass against one after the other
    python jobs/benchmarks/extraction.py scaling   1 to 32 sleeping teachers on fake GPUs of three local nodes
    python jobs/benchmarks/extraction.py memory    peak of the driver and of the object store, 100 to 10,000 shards
    python jobs/benchmarks/extraction.py read      Store.read_shard from the page cache

Every measurement has a separate driver process. Compared measurements run alternately; the result is the median of their
ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.benchmarks.child import child
from jobs.benchmarks.extraction_made import SLEEPING, prepared, random_weights
from jobs.benchmarks.extraction_read import read

MODELS = {"small": ("mobilenetv3_small_050", 224, 8192), "large": ("vit_small_patch16_224", 224, 256)}
"""Model, pixels, pictures."""
ON_GPU = {
    "small": ("vit_small_patch16_224", 224, 49_152),
    "large": ("vit_large_patch16_224", 224, 49_152),
}
BATCH_SIZE = {"cpu": 32, "cuda": 256}
PICTURE = 320
SCALING_ACTORS = (1, 2, 4, 8, 16, 32)
MEMORY_SHARDS = ((100, 10_000), (1000, 10_000), (10_000, 10_000), (500, 500), (1000, 500), (4000, 500))
"""Number of shards, and of shards per pipeline."""
SLEEP_S = 8.0
"""A sleeping teacher's time per shard: 256 pictures with DINOv2-g at 518 pixels on an RTX 4090 take about as long (35/s)."""


def measure(what: str, recipe: str, *more: str) -> dict[str, Any]:
    return child(str(Path(__file__).with_name("extraction_measure.py")), f"measure_{what}", recipe, *more)


def teacher(name: str, folder: Path, device: str = "cpu") -> dict[str, Any]:
    model, _, _ = (MODELS if device == "cpu" else ON_GPU)[name]
    weights = random_weights(model, folder)
    on_gpu = {"num_gpus": 1, "precision": "bf16"} if device == "cuda" else {}
    return {"name": name, "model": f"timm:{model}", "weights": weights, "batch_size": BATCH_SIZE[device], **on_gpu}


def loop(folder: Path, repeats: int, device: str = "cpu") -> None:
    print(
        "| model | pipeline samples/s | plain loop samples/s | ratio | pipeline starts in | loop starts in | busy |\n"
        + "|---" * 7
        + "|"
    )
    for name, (model, _, count) in (MODELS if device == "cpu" else ON_GPU).items():
        rows = 32 if device == "cpu" and name == "large" else 512
        recipe = prepared(folder, name, count, PICTURE, [teacher(name, folder, device)], rows)
        pairs = [(measure("pipeline", recipe), measure("loop", recipe)) for _ in range(repeats)]
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
        one_pass = measure("pipeline", both)
        passes = [measure("pipeline", recipe) for recipe in alone]
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
            "model": SLEEPING,
            "batch_size": 4,
            "num_actors": actors,
            "num_gpus": 1,
        }
        options = {"sleep_s": SLEEP_S if actors > 4 else 2.0, "log": str(folder / f"scaling{actors}.log")}
        recipe = prepared(folder, f"scaling{actors}", 4 * shards, 16, [{**sleeping, "options": options}], 4)
        found = measure("scaling", recipe, str(actors))
        print(f"| {found['actors']} | {found['efficiency']:.3f} | {found['window_s']:.0f} |", flush=True)


def memory(folder: Path, repeats: int) -> None:
    """Also with small rounds, which show the memory that many finished rounds leave."""
    print(
        "| shards | in rounds of | driver MiB | pipeline MiB | relay MiB | object store MiB | shards/s |\n"
        + "|---" * 7
        + "|"
    )
    for shards, in_a_round in MEMORY_SHARDS:
        sleeping = {"name": "sleeping", "model": SLEEPING, "options": {"sleep_s": 0}}
        recipe = prepared(folder, f"memory{shards}", shards, 16, [sleeping], 1)
        found = measure("memory", recipe, str(in_a_round))
        cells = [
            str(shards),
            str(in_a_round),
            *(f"{found[f'{name}_mib']:.0f}" for name in ("driver", "pipeline", "relay", "object_store")),
        ]
        print("| " + " | ".join([*cells, f"{shards / found['seconds']:.0f}"]) + " |", flush=True)


BENCHMARKS = {function.__name__: function for function in (loop, together, scaling, memory, read)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the loop")
    arguments = parser.parse_args()
    chosen: Iterator[str] = iter(BENCHMARKS if arguments.benchmark == "all" else [arguments.benchmark])
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            print(f"\n{name}", flush=True)
            more = {"device": arguments.device} if name == "loop" else {}
            BENCHMARKS[name](Path(folder), arguments.repeats, **more)


if __name__ == "__main__":
    main()
