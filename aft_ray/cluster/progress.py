"""Progress of long work: a live bar on a terminal, a line now and then in a job's log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from aft_ray.recipe.printable import printable

LOG_EVERY_S = 10.0


class Progress:
    """`with Progress("extract", total, "shards") as progress: ... progress.advance(1, "note")`, written to stderr."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.note = 0, ""
        self.started = self.logged = time.monotonic()
        self.bar: Bar | None = None
        if sys.stderr.isatty():
            columns = (TextColumn(f"{title:8}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
            self.bar = Bar(
                *columns,
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(title, total=total, note="")

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        elif self.total:
            print(f"{self.title}: 0/{self.total} {self.unit}", file=sys.stderr, flush=True)
        return self

    def advance(self, count: int, note: str = "") -> None:
        """`count` more units are done; `note` is shown beside the bar."""
        note = printable(note)
        self.done, self.note = self.done + count, note
        if self.bar:
            self.bar.update(self.task, completed=self.done, note=note)
        elif time.monotonic() - self.logged >= LOG_EVERY_S or self.done == self.total:
            self.logged = time.monotonic()
            left_s = (self.logged - self.started) * (self.total - self.done) / max(1, self.done)
            print(f"{self.title}: {self.done}/{self.total} {self.unit}, {left_s:.0f} s left  {note}", file=sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
