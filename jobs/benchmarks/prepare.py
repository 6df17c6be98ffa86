"""What `prepare` costs for a sample: CPU time and memory of listing, of choosing splits and of writing shards.

    python jobs/benchmarks/prepare.py [--kinds image_folder webdataset parquet jsonl] [--counts 10000 100000]

Each case is a process of its own over made data: pictures of 4 x 4 pixels, or short texts. CPU time is told, since wall time is
the machine's.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs.benchmarks.child import child

FILE_ROWS = 100_000
TAR_SAMPLES = 10_000
FOLDER_FILES = 1_000
COLUMNS = {"id": "id", "text": "text", "label": "label"}


def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(stream, "PNG")
    return stream.getvalue()


def make_image_folder(folder: Path, count: int) -> None:
    content = picture()
    for number in range(count):
        own = folder / f"class{number % 10}" / f"{number // (10 * FOLDER_FILES):04d}"
        if number % (10 * FOLDER_FILES) < 10:
            own.mkdir(parents=True)
        (own / f"{number:09d}.png").write_bytes(content)


def make_webdataset(folder: Path, count: int) -> None:
    content = picture()
    for start in range(0, count, TAR_SAMPLES):
        with tarfile.open(folder / f"{start // TAR_SAMPLES:05d}.tar", "w") as opened:
            for number in range(start, min(count, start + TAR_SAMPLES)):
                for suffix, body in ((".png", content), (".cls", b"%d" % (number % 10))):
                    member = tarfile.TarInfo(f"{number:09d}{suffix}")
                    member.size = len(body)
                    opened.addfile(member, io.BytesIO(body))


def rows(count: int) -> Iterator[tuple[int, list[dict[str, str]]]]:
    for start in range(0, count, FILE_ROWS):
        numbers = range(start, min(count, start + FILE_ROWS))
        yield start, [{"id": f"s{n:09d}", "text": f"the text of row {n}", "label": f"class{n % 10}"} for n in numbers]


def make_parquet(folder: Path, count: int) -> None:
    for start, found in rows(count):
        pq.write_table(pa.Table.from_pylist(found), folder / f"{start}.parquet")


def make_jsonl(folder: Path, count: int) -> None:
    for start, found in rows(count):
        (folder / f"{start}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in found))


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "image_folder": make_image_folder,
    "webdataset": make_webdataset,
    "parquet": make_parquet,
    "jsonl": make_jsonl,
}


def measure(kind: str, count: int, place: str) -> dict[str, float]:
    """CPU microseconds a sample of each step, and the rise of the peak memory, in this process."""
    from aft_ray.datasets import finding, prepare, samples
    from aft_ray.recipe.config import Recipe

    pa.array(np.zeros(1))  # imports what Arrow imports at first use
    found: dict[str, float] = {}

    @contextmanager
    def measured(name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        found[name] = 1e6 * (time.process_time() - cpu) / count
        found[f"{name}_s"] = time.perf_counter() - wall

    def watched(module: Any, name: str) -> None:
        function = getattr(module, name)

        def call(*arguments: Any, **keys: Any) -> Any:
            with measured(name):
                return function(*arguments, **keys)

        setattr(module, name, call)

    for module, name in (
        (finding, "list_samples"),
        (prepare, "check_apart"),
        (samples, "check_ids"),
        (samples, "choose_splits"),
        (prepare, "data_check"),
    ):
        watched(module, name)
    dataset: dict[str, Any] = {"source": kind, "path": f"{place}/data"}
    if kind in ("parquet", "jsonl"):
        dataset["columns"] = COLUMNS
    content = {"workspace": f"{place}/work", "dataset": dataset, "student": {"model": "tiny:cnn"}}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with measured("all"):
        prepare.prepare(Recipe.model_validate(content))
    found["memory"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kinds", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--counts", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--measure", nargs=3, metavar=("KIND", "COUNT", "FOLDER"), help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.measure:
        kind, count, place = parsed.measure
        print(json.dumps(measure(kind, int(count), place)))
        return
    print(f"load {os.getloadavg()[0]:.1f}; CPU microseconds a sample, seconds of wall time, MB\n")
    print(
        "| source | samples | listing | splits | writing | all | seconds | memory |\n|---|---|---|---|---|---|---|---|"
    )
    for kind in parsed.kinds:
        for count in parsed.counts:
            with tempfile.TemporaryDirectory() as place:
                Path(place, "data").mkdir()
                MAKERS[kind](Path(place, "data"), count)
                found = child(__file__, "--measure", kind, str(count), place)
            listing = found["list_samples"] + found["check_apart"] + found["check_ids"]
            writing = found["all"] - listing - found["choose_splits"]
            cells = (listing, found["choose_splits"], writing, found["all"], found["all_s"], found["memory"])
            print(f"| {kind} | {count:,} | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
