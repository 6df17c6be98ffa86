"""Numbers and tables as docs/results.md has them, and facts that its sections share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from aft_ray.report.results import METHODS, Entry, method_title
from aft_ray.study.found import Found

OURS = ("aft_probe", "probe_kd")
"""Methods of this project, not of the paper or of others."""
PAPER = {"aft": 0.887, "kd": 0.956, "rkd": 0.939, "ft": 0.928, "btune": 0.944}
"""Relative errors of the paper, Figure 1b: means over its own data, teachers and students, which are larger."""

Settings = Mapping[str, Found]


def title(method: str) -> str:
    return f"{method_title(method)}{' (ours)' * (method in OURS)}"


def compared(found: Iterable[Found]) -> list[str]:
    """Standard transfer, AFT, ours, and then the others."""
    known = dict.fromkeys(method for one in found for method in one.chosen)
    return [method for method in dict.fromkeys(("none", "aft", *OURS, *METHODS, *known)) if method in known]


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


def days(found: Found) -> str:
    """On which its methods were run."""
    return ", ".join(sorted({run["date"] for run in found.record.runs if run["method"] in found.chosen}))
