"""Progress of long work: a live bar on a terminal, a line now and then in a job's log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from aft_ray.recipe.printable import printable

LOG_EVERY_S, FOLLOWED_EVERY_S = 10.0, 1.0
WIDE = 120
"""Columns of a terminal with room for a long bar and a note."""


class Progress:
    """`with Progress("extract", total, "shards") as progress: ... progress.advance(1, "note")`, written to stderr."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """done: units that were done before."""
        self.title, self.total, self.unit = title, total, unit
        self.done, self.part, self.note = done, 0.0, ""
        self.before, self.logged = done, time.monotonic()
        self.since = (self.logged, float(done))
        self.is_starting = False
        self.bar: Bar | None = None
        if sys.stderr.isatty():
            self.bar = _bar(title, unit, Console(stderr=True))
            self.task = self.bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        elif self.total:
            print(f"{self.title}: {self.done}/{self.total} {self.unit}", file=sys.stderr, flush=True)
        return self

    def advance(self, count: int, note: str = "", seconds: float | None = None) -> None:
        """`count` more units are done; `note` is shown beside the bar. seconds: how long they took, where the work tells that."""
        if seconds is not None and self.done == self.before:  # the start of processes says nothing about the time left
            self.since = (time.monotonic() - seconds, float(self.done))
        self.done, self.note = self.done + count, printable(note)
        self.part = max(0.0, self.part - count)
        self._end_start()
        self._show()

    def begun(self, part: float) -> None:
        """Beside the units that are done, this many are done of others, such as 0.25 of one unit. Never goes back."""
        if part <= self.part:
            return
        self.part = min(part, self.total - self.done)
        self._end_start()
        self._show()

    def _end_start(self) -> None:
        """At the first sign of work: the time before, in which models were loaded, says nothing about the time left."""
        if self.is_starting:
            self.is_starting, self.since = False, (time.monotonic(), self.done + self.part)

    @contextmanager
    def following(self, part: Callable[[], float]) -> Iterator[None]:
        """Asks `part` every second how much of further units is done, and shows it. The work has to start first."""
        over = threading.Event()
        self.is_starting = True

        def follow() -> None:
            while not over.wait(FOLLOWED_EVERY_S):
                self.begun(part())

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(FOLLOWED_EVERY_S)

    def _show(self) -> None:
        now, done = time.monotonic(), self.done + self.part
        if self.bar:
            self.bar.update(self.task, completed=done, note=self.note)
            return
        started, before = self.since
        is_due = now - self.logged >= LOG_EVERY_S and done > before  # until then no speed is known
        if is_due or self.done == self.total:
            self.logged = now
            left_s = (now - started) * (self.total - done) / max(done - before, 1e-9)
            shown = f"{self.title}: {self.done}/{self.total} {self.unit}, {left_s:.0f} s left  {self.note}"
            print(shown.rstrip(), file=sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()


def _bar(title: str, unit: str, console: Console) -> Bar:
    """A bar in one line of the terminal. Where that is short the note is cut, never the counts and the time left."""
    fixed = partial(Column, no_wrap=True)
    return Bar(
        TextColumn(f"{title:8}", table_column=fixed()),
        BarColumn(40 if console.width >= WIDE else 12, table_column=fixed()),
        MofNCompleteColumn(table_column=fixed()),
        TextColumn(unit, table_column=fixed()),
        TimeRemainingColumn(table_column=fixed()),
        TextColumn("{task.fields[note]}", markup=False, table_column=fixed(ratio=1, overflow="ellipsis")),
        console=console,
        expand=True,
    )
