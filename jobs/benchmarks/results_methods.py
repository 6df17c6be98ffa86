"""The page's first claim: AFT against the alternatives, setting by setting and on average."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from scipy.stats import ttest_1samp

from aft_ray.report.results import METHODS, Entry, method_title, paired_test
from jobs.benchmarks.results_found import Found, mean_relative_error
from jobs.benchmarks.results_pictures import draw_methods
from jobs.benchmarks.results_text import CLEAR, accuracy, chance, table

PAPER = {"aft": 0.887, "kd": 0.956, "rkd": 0.939, "ft": 0.928, "btune": 0.944}
"""Relative errors of the paper, Figure 1b: means over its own data, teachers and students, which are larger."""


def methods_in_short(found: Mapping[str, Found]) -> list[str]:
    """The claim in a sentence or two."""
    searches = [search for search in found.values() if {"none", "aft"} <= set(search.entries)]
    if not searches:
        return []
    mean, error = mean_relative_error(searches, "aft")
    tests = [search.entries["aft"] for search in searches]
    better, worse = (sum(sign * entry.gain > 0 and entry.p_value < CLEAR for entry in tests) for sign in (1, -1))
    others = {method: mean_relative_error(searches, method)[0] for method in _compared(searches) if method != "none"}
    ranked = ", ".join(
        f"{method_title(method)} {value:.2f}" for method, value in sorted(others.items(), key=lambda item: item[1])
    )
    over = f"{len(searches)} setting{'s' * (len(searches) > 1)}"
    return [
        f"**AFT's error is {mean:.2f} ± {error:.2f} of standard transfer's** on average over {over} (the paper's:"
        f" {PAPER['aft']}); clearly less in {better}, clearly more in {worse}. All methods, least error first: {ranked}."
    ]


def _compared(searches: Collection[Found]) -> list[str]:
    return [method for method in METHODS if any(method in search.entries for search in searches)]


def methods_section(found: Mapping[str, Found], folder: Path) -> list[str]:
    """Every setting, its relative errors, and AFT paired with each other method; draws the picture into `folder`."""
    if not found:
        return []
    names = _compared(found.values())
    draw_methods(folder / "results-methods.png", found, names)
    return [
        table(
            [
                "setting",
                "data",
                "student",
                "labels",
                "train samples",
                "test samples",
                "linear head on the teacher, %",
                "date",
            ],
            [_setting(name, search) for name, search in found.items()],
        ),
        "Relative errors, standard transfer's own test error in percent in front. **Bold** is a gain and *italic* a loss over"
        f" standard transfer with p < {CLEAR}.",
        table(["setting", "error, %", *map(method_title, names[1:])], _relative_errors(found, names)),
        "![Relative errors of every method, mean and settings](results-methods.png)",
        "AFT against each of the others, paired by seed. The last column is a t-test over settings, of the mean gain in each.",
        table(
            [
                "against",
                "settings",
                "AFT clearly better",
                "clearly worse",
                "gain in accuracy, points",
                "p over settings",
            ],
            [_against(other, found) for other in names if other != "aft"],
        ),
        *(part for name, search in found.items() for part in (f"### `{name}`", _detail(search))),
    ]


def _setting(name: str, search: Found) -> list[str]:
    counts = [f"{search.made[key]:,}" for key in ("labels", "train", "test")]
    return [f"`{name}`", search.data, search.student, *counts, f"{100 * search.made['probe']:.1f}", search.made["date"]]


def _relative_errors(found: Mapping[str, Found], methods: Sequence[str]) -> list[list[str]]:
    """A line per setting, their mean with the standard error that the seeds give it, and the paper's."""
    rows = []
    for name, search in found.items():
        entries = search.entries
        cells = [_relative(entries[method]) if method in entries else "" for method in methods[1:]]
        rows.append([f"`{name}`", f"{100 * entries['none'].test_error:.1f}", *cells])
    means = ["**mean**", ""]
    for method in methods[1:]:
        mean, spread = mean_relative_error(found.values(), method)
        means.append(f"{mean:.3f} ± {spread:.3f}")
    paper = ["the paper's settings", "", *(str(PAPER.get(method, "")) for method in methods[1:])]
    return [*rows, means, paper]


def _relative(entry: Entry) -> str:
    text = f"{entry.relative_error:.2f}"
    if not entry.p_value < CLEAR:
        return text
    return f"**{text}**" if entry.gain > 0 else f"*{text}*"


def _against(other: str, found: Mapping[str, Found]) -> list[str]:
    tests = [
        paired_test(search.finals("aft"), search.finals(other))
        for search in found.values()
        if {"aft", other} <= set(search.entries)
    ]
    gains = [test.gain for test in tests]
    better = sum(test.gain > 0 and test.p_value < CLEAR for test in tests)
    worse = sum(test.gain < 0 and test.p_value < CLEAR for test in tests)
    p_value = float(ttest_1samp(gains, 0).pvalue) if len(gains) > 1 else math.nan
    mean = 100 * statistics.fmean(gains)
    return [method_title(other), str(len(tests)), str(better), str(worse), f"{mean:+.2f}", chance(p_value)]


def _detail(search: Found) -> str:
    rows = []
    for entry in sorted(search.entries.values(), key=lambda entry: entry.test_error):
        beta = f"{entry.beta:g}" if entry.teachers else ""
        gain = "" if math.isnan(entry.gain) else f"{100 * entry.gain:+.2f}"
        rows.append([entry.title, beta, f"{100 * entry.validation:.2f}", accuracy(entry), gain, chance(entry.p_value)])
    return table(["method", "beta", "validation, %", "test, %", "paired gain, points", "p"], rows)
