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
LISTED_CLASSES = 20
"""Rows of a table of classes."""


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    console.print(title, style="bold", soft_wrap=True)
    table = Table()
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    for number, column in enumerate(columns):
        short = max((len(row[number]) for row in texts), default=0) <= 18
        table.add_column(column, overflow="fold", no_wrap=short)
    for text in texts:
        table.add_row(*text)
    console.print(table)


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
