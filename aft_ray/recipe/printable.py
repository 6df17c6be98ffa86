"""Makes text from outside safe to show: names of classes, samples and files may hold invisible control characters."""

from __future__ import annotations

import io
import logging
import re
import sys

from aft_ray.recipe.secrets import redacted

STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks, changes of the writing direction, and undecodable bytes of a file's name."""


def printable(text: str, keep: str = "") -> str:
    """`text` with every character of STEERING, except those in `keep`, written as an escape such as \\x1b."""
    return STEERING.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text
    )


def counted(count: int, one: str, many: str = "") -> str:
    """`1 sample`, `1,791 samples`. many: where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def tell(text: str) -> None:
    """Writes one line of the program's own to stderr, without secrets."""
    print(f"aft-ray: {printable(redacted(text))}", file=sys.stderr, flush=True)


class PrintableFormatter(logging.Formatter):
    """Formats log records without secrets, each name escaped so that it stays on its line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(redacted(super().format(record)), keep="\n\t")  # of tracebacks


def show_any_character() -> None:
    """Makes stdout and stderr escape characters that their encoding lacks instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
