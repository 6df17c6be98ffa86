"""Tables, sizes and times on the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aft_ray.recipe.printable import printable


class SafeConsole(Console):
    """Shows every text literally: markup, emoji names and terminal commands in it have no effect."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


console = SafeConsole(width=None if sys.stdout.isatty() else 120)  # a log has no width of its own
NARROW = 18
"""Characters of a column that are never broken into lines; the first column, which names the row, is never broken."""
LISTED_CLASSES = 20
"""Rows of a table of classes."""


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table, or where the terminal is too short for its columns, a block of lines for each row."""
    console.print(title, style="bold", soft_wrap=True)
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    longest = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    wraps = [number > 0 and width > NARROW for number, width in enumerate(longest)]
    needed = sum(min(width, NARROW) if wrap else width for width, wrap in zip(longest, wraps, strict=True))
    if needed + 3 * len(columns) + 1 > console.width:
        _print_blocks(columns, texts)
        return
    table = Table()
    for column, wrap in zip(columns, wraps, strict=True):
        table.add_column(column, overflow="fold", no_wrap=not wrap)
    for text in texts:
        table.add_row(*text)
    console.print(table)


def _print_blocks(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
    """The first cell of each row on a line of its own, below it the others with their columns' names."""
    width = max(map(len, columns))
    for first, *rest in texts:
        console.print(first, soft_wrap=True)
        for column, text in zip(columns[1:], rest, strict=True):
            console.print(f"  {column:{width}}  {text}", soft_wrap=True, highlight=False)


def number(value: float, form: str, *, before: str = "", no: str = "-") -> str:
    """no: the text for a missing number (NaN), as one seed has no standard error."""
    return no if math.isnan(value) else f"{before}{value:{form}}"


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def duration(hours: float) -> str:
    return f"{hours * 60:.1f} min" if hours < 1 else f"{hours:.1f} h"
