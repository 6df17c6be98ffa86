"""What `prepare` costs where samples are sorted on disk: memory of the driver, CPU time of the driver and of its tasks.

    python jobs/benchmarks/buckets.py [--counts 10000 100000 1000000] [--in-memory]
        [--source made|parquet|image_folder|store|pairs]

The samples are made: a source that is listed in parts of 10,000 short texts, so that reading hides nothing; files of 100,000 rows
with these texts; pictures of 1 pixel, 1,000 to a class, most of them hard links, on a disk or behind a URL of fsspec, which is
listed as a store is; or files of rows with a text and the path of one of them, five rows to each. Tasks run one after another in
one other process, without Ray. Each case is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets import Listing
from aft_ray.datasets.items import UNKNOWN, Coded, Items
from aft_ray.datasets.parts import Facts, Head, Part, Plan, listing_of, scanned
from aft_ray.datasets.sources.labels import Labels
from aft_ray.recipe.sections import DatasetConfig
from jobs.benchmarks.child import child

PART, CLASSES, AHEAD = 10_000, 1_000, 4
ROWS_OF_FILE, LINKS, PAIRS = 100_000, 30_000, 5


@dataclass(frozen=True)
class MadePlan(Plan):
    """Texts that are made from their numbers."""

    count: int

    @property
    def parts(self) -> list[tuple[int, int]]:
        return [(start, min(start + PART, self.count)) for start in range(0, self.count, PART)]

    @staticmethod
    def scan(start: int, stop: int) -> Part:
        numbers = np.arange(start, stop)
        ids = [f"{number // PART:06d}/{number:010d}" for number in numbers.tolist()]
        labels = Labels("classification", ("label",), ())
        for name in range(CLASSES):
            labels.values[name] = len(labels.values)
            labels.places.append(ids[0])
        codes = (numbers * 7919 % CLASSES).astype(np.int32)
        unknown = np.full(len(ids), UNKNOWN)
        items = Items(pa.chunked_array([ids]), Coded((), codes), unknown, unknown.astype(np.int8))
        note = ",".join([f'["{key}",20],["{key}",3]' for key in ids]).encode()  # as tars have it
        facts = Facts(labels, items.labels_of(), frozenset({"text"}), Counter(), note)
        places = {name: numbers for name in ("image_start", "image_size", "text_start", "text_size")}
        return Part(items, pa.table({"tar": numbers.astype(np.int32), **places}), facts)

    def states(self) -> Sequence[Any]:
        return [0] * len(self.parts)

    def name_of(self, part: int) -> str:
        return f"part {part}"

    def head(self, whole: Facts, digest: str) -> Head:
        classes, labels = whole.labels.finish()
        return Head("text", classes, labels.values, "classification", "right", {"tars": digest}, {})

    def reader(self, modality: str, contents: pa.Table) -> Callable[[int], str]:
        numbers = contents.column("text_start").to_numpy()
        return lambda index: f"the text of row {numbers[index]}"


class Made:
    @staticmethod
    def plan(config: DatasetConfig) -> MadePlan:
        return MadePlan(config.options["count"])

    @staticmethod
    def list_samples(config: DatasetConfig) -> Listing:
        plan = Made.plan(config)
        return listing_of(plan, scanned(plan))


class OneProcess:
    """Tasks in one other process, to which a function is sent once, as Ray does."""

    def __init__(self, folder: str) -> None:
        self.folder, self.pool = folder, ProcessPoolExecutor(1, get_context("spawn"))
        self.seconds = Counter[str]()

    def __call__(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        path = Path(self.folder, f"{time.monotonic_ns()}.function")
        path.write_bytes(pickle.dumps(function))
        left, pending = iter(arguments), deque[Any]()
        while True:
            while len(pending) < AHEAD and (given := next(left, None)) is not None:
                pending.append(self.pool.submit(_timed, str(path), given))
            if not pending:
                return
            found, seconds = pending.popleft().result()
            self.seconds[function.__name__] += seconds
            yield found


@lru_cache(maxsize=1)
def _function(path: str) -> Callable[..., Any]:
    return pickle.loads(Path(path).read_bytes())


def _timed(path: str, given: tuple[Any, ...]) -> tuple[Any, float]:
    started = time.process_time()
    return _function(path)(*given), time.process_time() - started


def write_tables(count: int, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for start in range(0, count, ROWS_OF_FILE):
        numbers = range(start, min(start + ROWS_OF_FILE, count))
        rows = {"text": [f"the text of row {number}" for number in numbers]}
        rows["label"] = [f"class {number * 7919 % CLASSES}" for number in numbers]
        pq.write_table(pa.table(rows), folder / f"{start:010d}.parquet")
    return {"source": "parquet", "path": str(folder), "columns": {"text": "text"}}


def write_pictures(count: int, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    Image.new("RGB", (1, 1)).save(folder / "first.png")
    for number in range(count):
        if number % LINKS == 0:  # a file system allows so many links to a file
            source = folder / f"source-{number:010d}"
            source.write_bytes((folder / "first.png").read_bytes())
        if number % CLASSES == 0:
            (folder / "data" / f"{number // CLASSES:06d}").mkdir(parents=True)
        os.link(source, folder / "data" / f"{number // CLASSES:06d}" / f"{number:010d}.png")
    return {"source": "image_folder", "path": str(folder / "data")}


def write_pairs(count: int, folder: Path) -> dict[str, Any]:
    write_pictures(count // PAIRS, folder)
    for start in range(0, count, ROWS_OF_FILE):
        numbers = range(start, min(start + ROWS_OF_FILE, count))
        pictures = [number % (count // PAIRS) for number in numbers]
        rows = {"image": [f"data/{number // CLASSES:06d}/{number:010d}.png" for number in pictures]}
        rows["text"] = [f"the text of row {number}" for number in numbers]
        rows["label"] = [f"class {number * 7919 % CLASSES}" for number in numbers]
        pq.write_table(pa.table(rows), folder / f"{start:010d}.parquet")
    return {"source": "parquet", "path": str(folder), "columns": {"text": "text", "image": "image"}}


def write_to_store(count: int, folder: Path) -> dict[str, Any]:
    found = write_pictures(count, folder)
    return found | {"path": f"fsspec+local://{found['path']}"}


WRITERS = {"parquet": write_tables, "image_folder": write_pictures, "store": write_to_store, "pairs": write_pairs}


def resident(key: str) -> float:
    """MB of this process: VmRSS now, or VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1e3


def dataset_of(source: str, count: int, place: str) -> dict[str, Any]:
    """The recipe's data set, whose files lie below `place`."""
    if source == "made":
        return {"source": "jobs.benchmarks.buckets:Made", "path": place, "options": {"count": count}}
    return WRITERS[source](count, Path(place, "data"))


def measure(source: str, count: int, place: str, in_memory: bool, size: int | None) -> dict[str, Any]:
    """CPU microseconds a sample of the driver and of the tasks, and the rise of the driver's peak memory."""
    from aft_ray.datasets.prepare import prepare
    from aft_ray.models.students import student_transforms
    from aft_ray.recipe.config import Recipe
    from aft_ray.recipe.sections import StudentConfig

    student_transforms(StudentConfig(model="tiny:cnn"))  # imports torch, which the data check needs
    pa.array(np.zeros(1))  # imports what Arrow imports at first use
    way = "never" if in_memory else "always"
    dataset = {**dataset_of(source, count, place), "distributed": way, "samples_per_shard": size}
    content = {"workspace": f"{place}/work", "dataset": dataset, "student": {"model": "tiny:cnn"}}
    tasks = OneProcess(place)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
    before, cpu, wall = resident("VmRSS"), time.process_time(), time.perf_counter()
    prepare(Recipe.model_validate(content), helpers=Helpers(tasks))
    return {
        "memory": resident("VmHWM") - before,
        "driver": 1e6 * (time.process_time() - cpu) / count,
        "tasks": {name: 1e6 * seconds / count for name, seconds in tasks.seconds.items()},
        "wall": time.perf_counter() - wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--counts", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--in-memory", action="store_true", help="in one process, which sorts them in its memory")
    parser.add_argument("--source", choices=["made", *WRITERS], default="made")
    parser.add_argument("--rows", type=int, help="of a shard")
    parser.add_argument("--measure", nargs=2, metavar=("COUNT", "FOLDER"), help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.measure:
        count, place = parsed.measure
        print(json.dumps(measure(parsed.source, int(count), place, parsed.in_memory, parsed.rows)))
        return
    options = [
        "--source",
        parsed.source,
        *(["--in-memory"] if parsed.in_memory else []),
        *(["--rows", str(parsed.rows)] if parsed.rows else []),
    ]
    print(f"load {os.getloadavg()[0]:.1f}; MB, CPU microseconds a sample, seconds of wall time\n")
    names = ["map_rows", "sort_bucket", "choose_bucket", "write_shards"]
    if parsed.source == "pairs":
        names[2:3] = ["choose_pairs", "gather_pairs", "order_bucket"]
    if parsed.source == "store":
        names.insert(0, "list_folders")
    heads = ", ".join(name.partition("_")[0] for name in names)
    print(f"| samples | driver's memory | driver | tasks: {heads} | wall |\n|---|---|---|---|---|")
    for count in parsed.counts:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
            found = child(__file__, "--measure", str(count), place, *options)
        tasks = ", ".join(f"{found['tasks'].get(name, 0):.1f}" for name in names)
        print(
            f"| {count:,} | {found['memory']:.0f} | {found['driver']:.2f} | {tasks} | {found['wall']:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
