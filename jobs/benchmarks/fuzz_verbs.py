"""Verbs in a forked child, their results, and the judgement of how they ended."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from aft_ray import cli
from jobs.benchmarks.fuzz_files import STRAYS
from jobs.benchmarks.fuzz_without_ray import without_ray

VERBS: dict[str, tuple[str, ...]] = {
    "verify": ("verify", "work"),
    "prepare": ("prepare", "recipe.yaml"),
    "extract": ("extract", "recipe.yaml"),
    "rank": ("rank", "recipe.yaml"),
    "dry run": ("search", "recipe.yaml", "--dry-run"),
    "search": ("search", "recipe.yaml"),
    "train": ("train", "recipe.yaml"),
    "continue": ("train", "recipe.yaml", "run=cut"),
    "best": ("train", "work/searches/main/best.yaml"),
    "evaluate": ("evaluate", "recipe.yaml"),
    "export": ("export", "recipe.yaml"),
    "predict": ("predict", "recipe.yaml", "data/new"),
    "report": ("report", "recipe.yaml"),
    "init": ("init", "data/pictures"),
    "list runs": ("list", "runs", "work"),
    "list searches": ("list", "searches", "work"),
    "compare": ("compare", "work/runs/main", "work/runs/cut"),
}
READERS = {
    "samples": ("verify", "prepare", "extract", "rank", "dry run", "search", "continue", "evaluate", "report"),
    "features": ("verify", "extract", "rank", "dry run", "search", "continue", "report"),
    "main": ("train", "evaluate", "export", "predict", "report", "verify", "list runs", "compare"),
    "cut": ("continue", "report", "verify", "list runs", "compare"),
    "searches": ("search", "report", "best", "verify", "list searches"),
    "predictions": ("predict",),
    "rank.json": ("report", "rank"),
}
"""The verbs that read a part of a workspace."""
LIMIT_S = 20.0
"""Seconds after which a verb hangs; more where other processes wait for the same CPUs."""
MOST_LINES = 12
MEMORY = 8 << 30
TIMES = ("samples_per_s", "input_wait", "wall_time_s")
TRACEBACK = 99


@dataclass(frozen=True)
class Ended:
    """How a verb ended. status: None if it hung. results: of exit 0, as JSON. modules: its imports."""

    status: int | None
    out: str
    err: str
    results: Any
    seconds: float
    modules: tuple[str, ...]


def run(place: Path, arguments: Sequence[str], collect: Callable[[Path], Any], *, as_nobody: bool = False) -> Ended:
    """Runs a verb in the folder `place`, in a child of its own. collect: reads the results there, in the same child."""
    told = {name: place.parent / f"{place.name}.{name}" for name in ("out", "err", "results", "modules")}
    started = time.monotonic()
    child = os.fork()
    if not child:
        status = TRACEBACK
        try:
            status = _in_child(place, arguments, collect, told, as_nobody)
        finally:
            os._exit(status)
    ended = _wait(child, started)
    found = {
        name: path.read_text(errors="replace").replace(str(place), "") if path.exists() else ""
        for name, path in told.items()
    }
    results = json.loads(found["results"]) if ended == 0 and found["results"] else None
    return Ended(
        ended, found["out"], found["err"], results, time.monotonic() - started, tuple(found["modules"].split())
    )


def _in_child(
    place: Path, arguments: Sequence[str], collect: Callable[[Path], Any], told: dict[str, Path], as_nobody: bool
) -> int:
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(told[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    os.chdir(place)
    if as_nobody and not os.geteuid():
        _become_nobody(place.parent)
    try:
        with without_ray():
            status = cli.main(list(arguments))
        sys.stdout.flush()
        if not status:
            told["results"].write_text(json.dumps(collect(place), default=str, sort_keys=True))
            told["modules"].write_text(" ".join(sys.modules))
        return status
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return TRACEBACK
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _become_nobody(place: Path) -> None:
    """Root reads everything; an unreadable file shows to others only."""
    for root, folders, names in os.walk(place):
        for name in (".", *folders, *names):
            os.lchown(os.path.join(root, name), 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)


def _wait(child: int, started: float) -> int | None:
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    while time.monotonic() - started < LIMIT_S * max(1.0, waiting):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def collector(verb: str) -> Callable[[Path], Any]:
    """Reads the results of one of VERBS: all numbers that a user could use."""
    return {
        "prepare": lambda place: _hashes(place / "work/samples"),
        "extract": lambda place: _hashes(place / "work/features"),
        "rank": lambda place: json.loads((place / "work/rank.json").read_text()),
        "search": lambda place: _table(place / "work/searches/main/trials.parquet"),
        "train": lambda place: _run(place / "work/runs/main"),
        "continue": lambda place: _run(place / "work/runs/cut"),
        "best": lambda place: _run(_other_run(place / "work/runs")),
        "evaluate": lambda place: [
            json.loads((place / "work/runs/main/evaluation-test.json").read_text()),
            _table(place / "work/runs/main/predictions-test.parquet"),
        ],
        "export": lambda place: _hashes(place / "work/runs/main/export"),
        "predict": _predictions,
        "report": lambda place: [
            (place / "work/report" / n).read_text() for n in ("runs.csv", "trials.csv", "index.html")
        ],
    }.get(verb, lambda place: None)


def _other_run(runs: Path) -> Path:
    return next(path for path in sorted(runs.iterdir()) if path.name not in ("main", "cut"))


def _run(place: Path) -> Any:
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key not in (*TIMES, "digest", "run_id")} for line in lines]
    return [kept, hashlib.sha256((place / "student/student.safetensors").read_bytes()).hexdigest()]


def _table(path: Path) -> Any:
    rows = pq.read_table(path).to_pylist()
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def _predictions(place: Path) -> Any:
    folder = place / "work/predictions/main"
    summary = json.loads((folder / "predictions.json").read_text())
    return [summary["counts"], summary["num_errors"], [_table(folder / name) for name in summary["files"]]]


def _hashes(folder: Path) -> dict[str, str]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and os.access(path, os.R_OK)]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
        if not path.name.startswith(".") and path.name not in STRAYS
    }


def told_numbers(verb: str, out: str) -> str:
    """The output of a verb, without times and the names of new files."""
    lines = [line for line in out.splitlines() if not re.match(r"(a step|takes|busy |predictions:|next |or )", line)]
    is_free = verb in ("verify", "prepare", "extract", "list runs", "list searches")  # of missing parts, and of dates
    return "" if is_free else "\n".join(lines)


def outside(place: Path) -> dict[str, str]:
    """A digest of everything that no verb may change."""
    found = {}
    for root, folders, names in os.walk(place):
        if Path(root) == place:
            folders[:] = [name for name in folders if name not in ("work", "fresh", "__pycache__")]
        for name in (*folders, *names):
            path = Path(root, name)
            kind = f"{path.lstat().st_mode:o}"
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path.relative_to(place))] = f"{kind} {hashlib.sha256(content).hexdigest()}"
    for name in NOTES:
        found[name] = (place / name).read_text() if (place / name).exists() else "gone"
    return found


NOTES = ("work/notes.txt", "work/runs/main/notes.txt", "work/searches/main/notes.txt")
"""Files of the user's own in the workspace."""


def faults(ended: Ended, names: Sequence[str], wanted: Any, *, may_differ: bool, may_fail: bool = False) -> list[str]:
    """Why a user must not see this end of a verb.

    names: a message must contain one of them. wanted: the results of the undamaged run. may_differ: whether the right
    results are unknown. may_fail: whether status 1 is right, as for `verify`, and for a disk that must not be written.
    """
    if ended.status is None:
        return [f"hangs for {LIMIT_S:g} s"]
    if "Traceback (most recent call last)" in ended.err + ended.out or ended.status == TRACEBACK:
        return [f"traceback: {ended.err.strip().splitlines()[-1][:200] if ended.err.strip() else '?'}"]
    if ended.status not in (0, 2) and not (may_fail and ended.status == 1):
        return [f"exit {ended.status}: {ended.err[-200:]}"]
    if ended.status == 0:
        if may_differ or ended.results == wanted:
            return []
        return [f"other results: {_difference(wanted, ended.results)}"]
    lines = [line for line in ended.err.splitlines() if line.strip()]
    found = []
    if not 1 <= len(lines) <= MOST_LINES:
        found.append(f"{len(lines)} lines: {ended.err[:200]!r}")
    if max(map(len, lines), default=0) > 1000:
        found.append(f"a line of {max(map(len, lines))} characters")
    if names and not any(name in ended.err for name in names):
        found.append(f"names none of {', '.join(names)}: {ended.err[:300]!r}")
    return found


def _difference(wanted: Any, found: Any, where: str = "") -> str:
    if isinstance(wanted, dict) and isinstance(found, dict):
        pairs = [(key, wanted.get(key), found.get(key)) for key in sorted({*wanted, *found})]
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = [(str(number), *pair) for number, pair in enumerate(zip(wanted, found, strict=True))]
    else:
        if isinstance(wanted, str) and isinstance(found, str):
            start = next((k for k, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), 0)
            wanted, found = wanted[max(0, start - 30) : start + 60], found[max(0, start - 30) : start + 60]
        return f"{where}: {str(found)[:120]!r} for {str(wanted)[:120]!r}"
    for key, a, b in pairs:
        if a != b and not (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)):
            return _difference(a, b, f"{where}.{key}")
    return where
