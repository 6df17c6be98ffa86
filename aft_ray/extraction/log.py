"""Progress of an extraction, for a progress bar and as lines of `extract.jsonl` for programs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import TypedDict

from aft_ray.cluster.ranges import Range
from aft_ray.recipe.json_files import parsed_json
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.files import Directory

LOG = re.compile(r"extract(-\d+-of-\d+)?\.jsonl")


def log_name(only: Range | None) -> str:
    """The log of an extraction: of all shards, or of one range, whose command writes beside others."""
    return f"extract-{only.number}-of-{only.of}.jsonl" if only else "extract.jsonl"


class _Line(TypedDict):
    """The keys of every line of extract.jsonl."""

    event: str
    time: float
    teachers: dict[str, Any]


def check_log(workspace: Directory) -> None:
    """Raises InputError if a line of a log is damaged. An extraction adds its own lines whatever is there."""
    for name in filter(LOG.fullmatch, workspace.names()):
        for number, line in enumerate(workspace.read(name).splitlines(), 1):
            place = f"{workspace}/{name}, line {number},"
            parsed_json(line, _Line, place, "Delete that line: nothing else depends on it.")


@dataclass
class _Teacher:
    batch_size: int
    shards_left: int
    shards: int = 0
    samples: int = 0
    seconds: float = 0.0
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of each actor: when its first shard began and its last one was done."""

    def add_span(self, actor: str, seconds: float) -> None:
        """A shard was done now, by `actor`, in so many seconds."""
        now = time.monotonic()
        began, _ = self.spans.get(actor, (now - seconds, now))
        self.spans[actor] = (began, now)

    @property
    def elapsed(self) -> float:
        """Seconds since the first shard began."""
        return time.monotonic() - min(began for began, _ in self.spans.values()) if self.spans else 0.0

    @property
    def busy(self) -> float:
        """Share of its actors' time spent computing."""
        spent = sum(ended - began for began, ended in self.spans.values())
        return min(1.0, self.seconds / spent) if spent else 0.0


class Tally:
    """Counts the shards of each teacher as they are written. `note` is a line for a progress bar.

    Its log in the workspace gets a line at the start, at the end, whenever a batch size is lowered, and every ten seconds,
    or every hundredth of the elapsed time if that is longer. A line has `event`, `time` (seconds since 1970) and, per
    teacher, `shards`, `shards_left`, `samples`, `samples_per_s`, `busy` (share of its actors' time spent computing),
    `seconds_left`, `batch_size` and `actors` (processes that have worked, those that were lost too).
    """

    def __init__(
        self,
        workspace: Directory,
        teachers: Mapping[str, TeacherConfig],
        shards: Mapping[str, int],
        only: Range | None = None,
    ) -> None:
        """teachers, shards: of each directory of features, its teacher and the number of shards to make, of the range `only`."""
        self.workspace, self.name = workspace, log_name(only)
        self.teachers = {n: _Teacher(t.batch_size, shards[n]) for n, t in teachers.items()}
        self.lines = workspace.read(self.name) if workspace.has(self.name) else b""
        self.started = self.logged = time.monotonic()
        self.log("start")

    def add(self, name: str, result: Mapping[str, Any]) -> None:
        """result: an actor's report on a shard; empty if it found the shard written."""
        teacher = self.teachers[name]
        teacher.shards_left -= 1
        if not result:
            return
        teacher.add_span(result["actor"], result["seconds"] + result["write_seconds"])
        teacher.shards += 1
        teacher.samples += result["entry"]["num_samples"]
        teacher.seconds += result["seconds"]
        if result["batch_size"] < teacher.batch_size:
            teacher.batch_size = result["batch_size"]
            self.log("batch_size_lowered", teacher=name)
        elif time.monotonic() - self.logged >= max(10.0, 0.01 * (time.monotonic() - self.started)):
            self.log("progress")

    def facts(self, name: str) -> dict[str, Any]:
        """The values of one teacher in a line of `extract.jsonl`."""
        return self._facts(self.teachers[name])

    @property
    def note(self) -> str:
        facts = {name: self._facts(teacher) for name, teacher in self.teachers.items() if teacher.shards}
        return "  ".join(f"{name} {f['samples_per_s']:.0f}/s {100 * f['busy']:.0f} % busy" for name, f in facts.items())

    def log(self, event: str, **more: Any) -> None:
        teachers = {name: self._facts(teacher) for name, teacher in self.teachers.items()}
        line = {"event": event, "time": round(time.time(), 3), **more, "teachers": teachers}
        self.lines += json.dumps(line).encode() + b"\n"
        self.logged = time.monotonic()
        self.workspace.write(self.name, self.lines)

    def _facts(self, teacher: _Teacher) -> dict[str, Any]:
        elapsed = teacher.elapsed
        return {
            "shards": teacher.shards,
            "shards_left": teacher.shards_left,
            "samples": teacher.samples,
            "samples_per_s": round(teacher.samples / elapsed, 2) if elapsed else 0.0,
            "busy": round(teacher.busy, 3),
            "seconds_left": round(elapsed / teacher.shards * teacher.shards_left, 1) if teacher.shards else None,
            "batch_size": teacher.batch_size,
            "actors": len(teacher.spans),
        }
