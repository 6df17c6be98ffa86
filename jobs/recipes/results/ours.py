"""What of our methods matters: a section of docs/results.md."""

from __future__ import annotations

import statistics
from pathlib import Path

from aft_ray.report.results import Entry
from aft_ray.study.averages import is_clear
from aft_ray.study.found import STANDARD, Found
from jobs.recipes.results.text import Settings, table

VARIANTS = {
    "half": "`aft_probe`, raw features with weight 1/2 (the default)",
    "without-raw": "without them (`raw_weight: 0`)",
    "equal": "with weight 1",
    "chosen": "weight chosen on validation",
    "both": "`aft_probe` and a fifth of `probe_kd`",
}


def ours_section(found: Settings, folder: Path) -> list[str]:
    """A row for each variant: relative errors by data set."""
    data = list(dict.fromkeys(_data(one) for one in found.values()))
    rows = []
    for variant, title in VARIANTS.items():
        entries = {_data(one): _own(one) for name, one in found.items() if name == f"{_data(one)}-{variant}"}
        known = [entry.relative_error for entry in entries.values() if entry]
        if known:
            cells = [_cell(entries.get(name)) for name in data]
            rows.append([title, *cells, f"{statistics.fmean(known):.3f}" if len(known) == len(data) else ""])
    if not rows:
        return []
    return [
        "Relative errors with the same rates and 240 steps; strength and rate chosen on validation as above, three fresh seeds,"
        " one split. **Bold** is a gain over standard transfer with p < 0.05.",
        table(["variant", *data, "mean"], rows),
    ]


def _data(found: Found) -> str:
    return found.name.partition("-")[0]


def _own(found: Found) -> Entry | None:
    return next((entry for method, entry in found.chosen.items() if method != STANDARD), None)


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return ""
    return f"**{entry.relative_error:.2f}**" if is_clear(entry, 1) else f"{entry.relative_error:.2f}"
