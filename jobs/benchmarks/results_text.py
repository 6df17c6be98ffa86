"""Numbers and tables as the page of results writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aft_ray.report.results import Entry

CLEAR = 0.05
"""Differences with a p-value below this are marked."""


def accuracy(entry: Entry) -> str:
    """On test, in percent, with its standard error."""
    return f"{100 * entry.test:.2f} ± {100 * entry.test_se:.2f}"


def chance(value: float) -> str:
    """A p-value; nothing where there is none."""
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
