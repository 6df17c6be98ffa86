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


OURS = ("aft_probe", "probe_kd")
"""Methods of this project, not of the paper or of others."""


def methods_in_short(found: Mapping[str, Found]) -> list[str]:
    """The claim in some sentences."""
    if not any({"none", "aft"} <= set(search.entries) for search in found.values()):
        return []
    names = _compared(found.values())
    alike = [search for search in found.values() if set(names) <= set(search.entries)]
    means = {method: mean_relative_error(alike, method)[0] for method in names[1:] if alike}
    ranked = ", ".join(f"{_title(method)} {value:.2f}" for method, value in sorted(means.items(), key=lambda i: i[1]))
    over = f"All methods over the {_settings(len(alike))} that {'has' if len(alike) == 1 else 'have'} them all"
    return [*verdicts(found, ("aft", *OURS)), *([f"{over}, least error first: {ranked}."] if ranked else [])]


def verdicts(found: Mapping[str, Found], methods: Sequence[str]) -> list[str]:
    """What each of `methods` did to standard transfer's error, with every setting that it made clearly worse."""
    sentences = []
    for method in methods:
        having = {name: search for name, search in found.items() if {"none", method} <= set(search.entries)}
        if not having:
            continue
        mean, error = mean_relative_error(having.values(), method)
        by_data = _mean_over_data(having, method)
        entries = {name: search.entries[method] for name, search in having.items()}
        better, worse = ([name for name, entry in entries.items() if is_clear(entry, sign)] for sign in (1, -1))
        higher = [f"`{name}` {entry.relative_error:.2f}" for name, entry in entries.items() if entry.gain < 0]
        paper = f"; the paper's: {PAPER[method]}" if method in PAPER else ""
        left_out = f" (not run on {len(found) - len(having)} others)" if len(having) < len(found) else ""
        sentences.append(
            f"**{_title(method)}: error {mean:.2f} ± {error:.2f} of standard transfer's** over {_settings(len(having))}"
            f"{left_out}, {by_data:.2f} over data sets{paper}. Clearly less (p < {CLEAR}) in {len(better)}, by Holm's"
            f" correction in {_holm(entries.values())}; clearly more in {len(worse)}."
            f" {'Above 1: ' + ', '.join(higher) + '.' if higher else 'Nowhere above 1.'}"
        )
    return sentences


def _settings(count: int) -> str:
    return f"{count} setting{'s' * (count > 1)}"


def _title(method: str) -> str:
    return f"{method_title(method)}{' (ours)' * (method in OURS)}"


def is_clear(entry: Entry, sign: int) -> bool:
    return sign * entry.gain > 0 and entry.p_value < CLEAR


def _holm(entries: Collection[Entry]) -> int:
    """How many gains stay clear when all comparisons of a method count as one family."""
    ordered = sorted(entries, key=lambda entry: entry.p_value)
    count = 0
    for rank, entry in enumerate(ordered):
        if not entry.p_value < CLEAR / (len(ordered) - rank):
            break
        count += entry.gain > 0
    return count


def _mean_over_data(found: Mapping[str, Found], method: str) -> float:
    """The mean relative error where each data set counts once, however many settings it has."""
    by_data: dict[str, list[float]] = {}
    for search in found.values():
        by_data.setdefault(search.data, []).append(search.entries[method].relative_error)
    return statistics.fmean(map(statistics.fmean, by_data.values()))


def _compared(searches: Collection[Found]) -> list[str]:
    """Standard transfer, AFT, ours, and then the others."""
    first = ("none", "aft", *OURS)
    return [m for m in dict.fromkeys((*first, *METHODS)) if any(m in search.entries for search in searches)]


def methods_section(found: Mapping[str, Found], folder: Path) -> list[str]:
    """Every setting, its relative errors, and ours and AFT paired with each other method; draws the picture."""
    if not found:
        return []
    names = _compared(found.values())
    draw_methods(folder / "results-methods.png", found, names)
    return [
        *tables(found),
        "AFT with probes and probe KD are methods of this project. Their defaults were found on validation splits of digits,"
        " clothes, reviews and glosses, so this table flatters them; the next section does not. The other methods and standard"
        " transfer were run days before, with the same seeds and samples."
        f" {_ends(found)}",
        "![Relative errors of every method, mean and settings](results-methods.png)",
        *(part for method in ("aft", *OURS) if method in names for part in _against_all(method, found, names)),
        *details(found),
    ]


def _ends(found: Mapping[str, Found]) -> str:
    """How often validation chose the first or last strength that a method had: others beyond it might do better."""
    told = []
    for method in ("aft", *OURS):
        having = [search for search in found.values() if method in search.entries]
        chosen = [search.entries[method].beta for search in having]
        tried = {row["regularizer.beta"] for s in having for row in s.rows if row["regularizer.name"] == method}
        if chosen:
            low, high = min(tried), max(tried)
            told.append(f"{method_title(method)} {low:g} {chosen.count(low)} and {high:g} {chosen.count(high)} times")
    return f"How often validation chose the lowest and the highest strength: {', '.join(told)}." if told else ""


def new_section(found: Mapping[str, Found], folder: Path) -> list[str]:
    """The settings that took no part in finding our methods."""
    if not found:
        return []
    return [
        "These data sets took no part in finding our methods, and the students are pretrained. Of texts: the first two layers of"
        " the teacher, MiniLM, with the mean of their tokens. Of pictures: a MobileNetV2 at 64 pixels, Lite0 at 128 as"
        " teacher. Each method has two strengths, and three seeds choose on validation.",
        "\n".join(f"- {sentence}" for sentence in verdicts(found, ("aft", *OURS))),
        *tables(found),
        *details(found),
    ]


def tables(found: Mapping[str, Found]) -> list[str]:
    """What the settings are, and every method's relative error in each."""
    names = _compared(found.values())
    columns = ["setting", "data", "student", "labels", "train samples", "test samples"]
    return [
        table([*columns, "linear head on the teacher, %", "date"], [_setting(*item) for item in found.items()]),
        "Relative errors, standard transfer's own test error in percent in front. **Bold** is a gain and *italic* a loss over"
        f" standard transfer with p < {CLEAR}.",
        table(["setting", "error, %", *map(_title, names[1:])], _relative_errors(found, names)),
    ]


def details(found: Mapping[str, Found]) -> list[str]:
    return [part for name, search in found.items() for part in (f"### `{name}`", _detail(search))]


def _against_all(method: str, found: Mapping[str, Found], names: Sequence[str]) -> list[str]:
    title = _title(method)
    return [
        f"{title} against each of the others, paired by seed. The last column is a t-test over settings, of the mean gain in"
        " each.",
        table(
            [
                "against",
                "settings",
                f"{title} clearly better",
                "clearly worse",
                "gain in accuracy, points",
                "p over settings",
            ],
            [_against(method, other, found) for other in names if other != method],
        ),
    ]


def _setting(name: str, search: Found) -> list[str]:
    counts = [f"{search.made[key]:,}" for key in ("labels", "train", "test")]
    return [f"`{name}`", search.data, search.student, *counts, f"{100 * search.made['probe']:.1f}", _dates(search)]


def _dates(search: Found) -> str:
    return ", ".join(sorted({search.run(method)["date"] for method in search.entries}))


def _relative_errors(found: Mapping[str, Found], methods: Sequence[str]) -> list[list[str]]:
    """A line per setting, their mean with the standard error that the seeds give it, the mean over data, and the paper's."""
    rows = []
    for name, search in found.items():
        entries = search.entries
        cells = [_relative(entries[method]) if method in entries else "" for method in methods[1:]]
        rows.append([f"`{name}`", f"{100 * entries['none'].test_error:.1f}", *cells])
    means, by_data = ["**mean**", ""], ["mean over data sets", ""]
    for method in methods[1:]:
        having = {name: search for name, search in found.items() if method in search.entries}
        mean, spread = mean_relative_error(having.values(), method)
        of = f" of {len(having)}" if len(having) < len(found) else ""
        means.append(f"{mean:.3f} ± {spread:.3f}{of}")
        by_data.append(f"{_mean_over_data(having, method):.3f}")
    paper = ["the paper's settings", "", *(str(PAPER.get(method, "")) for method in methods[1:])]
    return [*rows, means, by_data, paper]


def _relative(entry: Entry) -> str:
    text = f"{entry.relative_error:.2f}"
    if not entry.p_value < CLEAR:
        return text
    return f"**{text}**" if entry.gain > 0 else f"*{text}*"


def _against(method: str, other: str, found: Mapping[str, Found]) -> list[str]:
    tests = [
        paired_test(search.finals(method), search.finals(other))
        for search in found.values()
        if {method, other} <= set(search.entries)
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
        rows.append(
            [_title(entry.method), beta, f"{100 * entry.validation:.2f}", accuracy(entry), gain, chance(entry.p_value)]
        )
    return table(["method", "beta", "validation, %", "test, %", "paired gain, points", "p"], rows)
