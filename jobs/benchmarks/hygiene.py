"""Hygiene of long use: what runs, searches and killed commands leave in a workspace and on the machine.

    python jobs/benchmarks/hygiene.py /tmp/h                                      50 runs, 10 searches, 20 kills: half an hour
    python jobs/benchmarks/hygiene.py /tmp/h --runs 10 --searches 2 --kills 4

One workspace of real digits. The runs and searches are calls of `aft_ray.train` and `aft_ray.search` in this one process; then
commands in processes of their own are killed by SIGKILL at moments that the seed chooses, and each is run again to its end,
with all files two days older. Before and after each part come the files and bytes of the workspace, the temporary directory,
the clusters in it, and the user's cache, which all lie in FOLDER; names in /dev/shm; processes that still run; and this
process's resident memory, threads and open files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from aft_ray.cluster.place import LONGEST

ROOT = Path(__file__).parents[2]
MARK = "AFT_RAY_HYGIENE"
"""A variable of every process that this one has started, directly or not."""
SHARED = Path("/dev/shm")
ENDS_WITHIN_S = 60.0
RECIPE = {
    "dataset": {"name": "mnist5k", "max_samples": 400, "samples_per_shard": 50},
    "teachers": [{"name": "noise", "model": "jobs.benchmarks.noise:Noise", "options": {"dim": 64}}],
    "student": {"model": "tiny:cnn"},
    "regularizer": {"name": "aft", "beta": 5},
    "train": {"steps": 8, "evaluate_every": 2, "global_batch_size": 32, "num_workers": 1},
    "search": {"compare": ["none", "aft"], "beta": [5, 20], "teachers": "all_subsets", "final": {"seeds": 1}},
}
KILLED = {
    "prepare": ("--overwrite",),
    "extract": ("--overwrite",),
    "train": ("train.steps=60", "train.num_workers=2"),
    "search": ("train.steps=40",),
}
"""Commands that are killed, with arguments that make them work when they start."""
CLUSTERS = f"aft-clusters-{os.getuid()}"


def parts_of(workspace: Path) -> dict[str, list[Path]]:
    """Files and empty directories below the workspace, by part: names of runs and of checkpoints are replaced by `*`."""
    found: dict[str, list[Path]] = {}
    for folder, folders, names in os.walk(workspace):
        inside = [Path(folder, name) for name in names] or ([] if folders else [Path(folder)])
        for path in inside:
            part = str(path.relative_to(workspace).parent)
            part = re.sub(r"^(runs|leases/runs|searches|leases/searches)/[^/]+", r"\1/*", part)
            part = re.sub(r"(trials|checkpoints)/[^/]+", r"\1/*", part)
            found.setdefault(re.sub(r"tune-(search|finals).*", "tune-*", part), []).append(path)
    return found


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Number and bytes of everything that is counted."""
    found = parts_of(folder / "work")
    for name in ("tmp", f"tmp/{CLUSTERS}", "tmp/ray", "cache"):
        place = folder / name
        found[f"({name})"] = sorted(place.iterdir()) if place.is_dir() else []
    sizes = {part: (len(paths), sum(map(_bytes, paths))) for part, paths in found.items()}
    sizes["(/dev/shm)"] = (len(list(SHARED.iterdir())) if SHARED.is_dir() else 0, 0)
    sizes["(processes)"] = (len(still_running()), 0)
    return sizes


def _bytes(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(one.lstat().st_size for one in inside if one.is_file() and not one.is_symlink())


def still_running() -> list[str]:
    """The command lines of living processes with our mark, without this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"{MARK}={os.getpid()}".encode() in (place / "environ").read_bytes()
            if ours and int(place.name) != os.getpid():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80])
        except OSError:  # it ended, or is another user's
            continue
    return found


def own_memory() -> tuple[float, int, int]:
    """This process's resident MiB, its threads and its open files."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, threading.active_count(), len(os.listdir("/proc/self/fd"))


def opened() -> Counter[str]:
    """This process's open files, by name without numbers."""
    found: Counter[str] = Counter()
    for place in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[re.sub(r"[0-9]+", "N", os.readlink(place))] += 1
    return found


def tell_growth(title: str, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], count: int) -> None:
    print(f"\n{title}\n| part | before | after | KiB before | KiB after | a time |\n" + "|---" * 6 + "|")
    for part in sorted(before.keys() | after.keys()):
        (old, old_bytes), (new, new_bytes) = before.get(part, (0, 0)), after.get(part, (0, 0))
        if (old, old_bytes) != (new, new_bytes):
            rate = f"{(new - old) / count:.2g} files, {(new_bytes - old_bytes) / 1024 / count:.3g} KiB"
            print(f"| {part} | {old} | {new} | {old_bytes / 1024:.0f} | {new_bytes / 1024:.0f} | {rate} |")
    sys.stdout.flush()


def tell_state(title: str, folder: Path) -> None:
    found = {part: count for part, (count, _) in state(folder).items() if part.startswith("(") or "tune" in part}
    print(f"{title}: {found}", flush=True)


def measured(title: str, folder: Path, count: int, work: Callable[[], Iterator[None]]) -> None:
    """Does the work, `count` times something, and tells its growth; own memory after each."""
    before, started, memory = state(folder), time.perf_counter(), [own_memory()]
    first: Counter[str] = Counter()
    for _ in work():
        memory.append(own_memory())
        first = first or opened()
    told = f"{count} {title} in {time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.1f}"
    tell_growth(told, before, state(folder), count)
    shown = [
        memory[i] for i in sorted({0, 1, len(memory) // 4, len(memory) // 2, 3 * len(memory) // 4, len(memory) - 1})
    ]
    print("this process, MiB / threads / files: " + ", ".join(f"{m:.0f} / {t} / {f}" for m, t, f in shown))
    print(f"files opened since the first time: {dict(opened() - first)}", flush=True)


def runs(recipe: Path, count: int) -> Iterator[None]:
    import aft_ray

    for number in range(count):
        aft_ray.train(aft_ray.load(recipe, {"run": f"run-{number:03d}"}))
        yield


def searches(recipe: Path, count: int) -> Iterator[None]:
    import aft_ray

    for number in range(count):
        aft_ray.search(aft_ray.load(recipe, {"run": f"search-{number:03d}"}))
        yield


def kills(recipe: Path, count: int, seed: int) -> Iterator[None]:
    """SIGKILL of commands at random moments of their time. Last, each is run to its end."""
    seeded, seconds = random.Random(seed), {}
    for verb, more in KILLED.items():
        started = time.perf_counter()
        if status := command(recipe, verb, named(0), *more).wait():
            raise SystemExit(f"aft-ray {verb} ended with status {status}")
        seconds[verb] = time.perf_counter() - started
        print(f"{verb} takes {seconds[verb]:.1f} s", flush=True)
    killed: Counter[str] = Counter()
    for _ in range(count):
        verb = seeded.choice(list(KILLED))
        child = command(recipe, verb, named(1), *KILLED[verb])
        try:
            child.wait(seeded.uniform(0.3, 0.95) * seconds[verb])
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            killed[verb] += 1
        child.wait()
        yield
    until = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < until and still_running():
        time.sleep(1)
    print(f"killed: {dict(killed)}; still running: {still_running()}", flush=True)
    tell_state("after the kills", recipe.parent)
    make_older(recipe.parent)
    for verb, more in KILLED.items():
        if status := command(recipe, verb, named(1), *more).wait():
            print(f"{verb} ended with status {status}", flush=True)


def make_older(folder: Path) -> None:
    """Everything below was last changed two days earlier."""
    for path in [folder, *folder.rglob("*")]:
        with suppress(FileNotFoundError):
            then = path.lstat().st_mtime - 2 * 24 * 3600
            os.utime(path, (then, then), follow_symlinks=False)


def named(number: int) -> str:
    return f"run=killed-{number}"


def command(recipe: Path, *arguments: str) -> subprocess.Popen[bytes]:
    verb, *rest = arguments
    given = [sys.executable, "-m", "aft_ray.cli", verb, str(recipe), *rest]
    return subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


def set_places(folder: Path) -> Path:
    """Lets this process and its children keep temporary files in `folder` alone. Returns the recipe."""
    for variable, name in (("TMPDIR", "tmp"), ("XDG_CACHE_HOME", "cache")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(folder / name)
    os.environ.pop("RAY_TMPDIR", None)
    tempfile.tempdir = None
    os.environ[MARK] = str(os.getpid())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"workspace": str(folder / "work"), **RECIPE}))  # JSON is YAML
    return recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--searches", type=int, default=10)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="of a short path; it stays, and a second call goes on there"
    )
    arguments = parser.parse_args()
    folder = arguments.folder
    if len(str(folder / "tmp" / CLUSTERS)) > LONGEST:  # the files would lie elsewhere, uncounted
        parser.error(f"{folder}/tmp/{CLUSTERS} is too long a path for sockets: name another folder")
    recipe = set_places(folder)
    for verb in ("prepare", "extract"):
        if not (folder / "work" / "features").exists() and command(recipe, verb).wait():
            raise SystemExit(f"aft-ray {verb} failed")
    parts = {
        "runs": (arguments.runs, lambda: runs(recipe, arguments.runs)),
        "searches": (arguments.searches, lambda: searches(recipe, arguments.searches)),
        "kills": (arguments.kills, lambda: kills(recipe, arguments.kills, arguments.seed)),
    }
    for title, (count, work) in parts.items():
        if count:
            measured(title, folder, count, work)


if __name__ == "__main__":
    main()
