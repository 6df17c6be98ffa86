"""Warnings and logs of libraries go to a file of the workspace; the terminal names it at the end of the command."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.printable import PrintableFormatter, tell

if TYPE_CHECKING:
    from aft_ray.store.files import Directory

WRITTEN_EVERY_S, MOST = 5.0, 10_000
"""Seconds between two writes of the file, and its longest number of entries."""


class LibraryLog(logging.StreamHandler):
    """Shows our own warnings, and all errors, on stderr. Keeps the libraries' warnings for a file of the workspace.

    Until a place is given, everything is shown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
        self.place: Directory | None = None
        self.name_of_file, self.entries, self.num_written = "", list[str](), 0
        self.writer: threading.Thread | None = None
        self.ended = threading.Event()

    def goes_to(self, place: Directory, name: str) -> None:
        self.place, self.name_of_file, self.entries, self.num_written = place, name, [], 0
        logging.captureWarnings(True)

    def emit(self, record: logging.LogRecord) -> None:
        is_ours = record.name.partition(".")[0] == "aft_ray"
        if self.place is None or is_ours or record.levelno >= logging.ERROR:
            self.stream = sys.stderr
            super().emit(record)
        elif len(self.entries) < MOST:
            self.entries.append(f"{time.strftime('%H:%M:%S')} {self.format(record)}")
            if self.writer is None:
                self.ended.clear()
                self.writer = threading.Thread(target=self._keep_writing, daemon=True)
                self.writer.start()

    def end(self) -> None:
        """Writes the rest and names the file, if there is anything in it. A program around the command keeps its own handlers."""
        root = logging.getLogger()
        if len(root.handlers) > 1:
            root.removeHandler(self)
        if self.writer is not None:
            self.ended.set()
            self.writer.join()
            self.writer = None
        if self.place is None:
            return
        if self.entries and self._write():
            said = f"{len(self.entries)} warning{'s' if len(self.entries) > 1 else ''} of libraries"
            tell(f"{said}: {self.place}/{self.name_of_file}")
        logging.captureWarnings(False)
        self.place = None

    def _keep_writing(self) -> None:
        """Work of a thread of its own: a store that is slow must not hold up every thread that logs."""
        while not self.ended.wait(WRITTEN_EVERY_S):
            if len(self.entries) > self.num_written:
                self._write()

    def _write(self) -> bool:
        """Whether the file could be written; else its entries go to stderr: a full disk must not end a command here."""
        assert self.place is not None
        entries = self.entries.copy()
        try:
            self.place.write(self.name_of_file, "".join(f"{entry}\n" for entry in entries).encode())
        except (OSError, InputError):
            print(*entries, sep="\n", file=sys.stderr)
            del self.entries[: len(entries)]
            self.num_written = 0
            return False
        self.num_written = len(entries)
        return True


LIBRARY_LOG = LibraryLog()
