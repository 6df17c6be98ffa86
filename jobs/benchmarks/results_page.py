"""docs/results.md: tables of what searches have left behind, and no number from anywhere else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scipy.stats import pearsonr, ttest_1samp

from aft_ray.results import METHODS, Entry, method_title, paired_test
from jobs.benchmarks.results_found import Found
from jobs.benchmarks.results_pictures import draw_methods, draw_teachers

CLEAR = 0.05
HEAD = """# Results: do the claims hold here?

Written by `{command}`; every number is read from the tables that its searches wrote (`trials.parquet`, `metrics.jsonl`). Real
data and real pretrained teachers, all from registry packages.

In each setting every method has the same number of strengths (beta) to choose from by its mean validation accuracy; then come
fresh seeds, five in `make results`, which alone see the test split. A seed sets initial weights, the order of samples and which
labels are kept, and is the same for all methods, so gains are paired by seed; p is that of a two-sided paired t-test. ± is a
standard error over seeds and does not include the choice of the split. *Relative error* is the test error divided by that of
standard transfer learning, as in the paper's Figure 1b: below 1 is better. A difference with p above {clear} is noise until more
seeds say otherwise, and among so many comparisons some below it are noise as well."""

Searches = Mapping[str, Found]
Section = Callable[[Searches, Path], list[str]]


def write_page(page: Path, claims: Mapping[str, Mapping[str, Found | None]], command: str) -> None:
    """Writes the page and the pictures beside it. claims: their searches by name, None where one is not finished."""
    page.parent.mkdir(parents=True, exist_ok=True)
    finished = {claim: {name: found for name, found in searches.items() if found} for claim, searches in claims.items()}
    parts = [HEAD.format(command=command, clear=CLEAR), _conditions(finished)]
    for claim, searches in claims.items():
        title, section = SECTIONS[claim]
        parts += [f"## {title}", *section(finished[claim], page.parent)]
        missing = [f"`{name}`" for name in searches if name not in finished[claim]]
        for name, found in finished[claim].items():
            missing += [f"{method_title(method)} on `{name}`" for method in found.missing]
        parts += [f"Not run yet: {', '.join(missing)}."] if missing else []
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _conditions(claims: Mapping[str, Searches]) -> str:
    """When, on what, and how much of it. A search that serves several claims counts once."""
    found = {(f.recipe.workspace, f.recipe.run): f for searches in claims.values() for f in searches.values()}.values()
    if not found:
        return "Nothing has been run yet."
    days = sorted(search.made["date"] for search in found)
    hours = sum(row["wall_time_s"] for search in found for row in search.rows) / 3600
    machines = "; ".join(sorted({search.made["machine"] for search in found}))
    trainings = sum(len(search.rows) for search in found)
    return f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, {machines}. {trainings:,} trainings, {hours:.1f} core-hours."


# ---- AFT against the alternatives -------------------------------------------------------------------------------------


def _methods(found: Searches, folder: Path) -> list[str]:
    if not found:
        return []
    names = [method for method in METHODS if any(method in search.entries for search in found.values())]
    draw_methods(folder / "results-methods.png", found, names)
    return [
        _table(
            ["setting", "data", "student", "labels", "train samples", "test samples", "linear head on the teacher, %"],
            [_setting(name, search) for name, search in found.items()],
        ),
        "Relative errors, standard transfer's own test error in percent in front. **Bold** is a gain and *italic* a loss over"
        f" standard transfer with p < {CLEAR}.",
        _table(["setting", "error, %", *map(method_title, names[1:])], _relative_errors(found, names)),
        "![Relative errors of every method, mean and settings](results-methods.png)",
        "AFT against each of the others, paired by seed. The last column is a t-test over settings, of the mean gain in each.",
        _table(
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
    recipe, made = search.recipe, search.made
    student = f"{recipe.student.model.rpartition('/')[2]}{', pretrained' * recipe.student.pretrained}"
    counts = [f"{made[key]:,}" for key in ("labels", "train", "test")]
    return [f"`{name}`", str(recipe.dataset.name), student, *counts, f"{100 * made['probe']:.1f}"]


def _relative_errors(found: Searches, methods: Sequence[str]) -> list[list[str]]:
    """A line per setting, and their mean with the standard error that the seeds give it."""
    rows = []
    for name, search in found.items():
        entries = search.entries
        cells = [_relative(entries[method]) if method in entries else "" for method in methods[1:]]
        rows.append([f"`{name}`", f"{100 * entries['none'].test_error:.1f}", *cells])
    means = ["**mean**", ""]
    for method in methods[1:]:
        entries_ = [search.entries[method] for search in found.values() if method in search.entries]
        error = math.hypot(*(entry.relative_error_se for entry in entries_)) / len(entries_)
        means.append(f"{statistics.fmean(entry.relative_error for entry in entries_):.3f} ± {error:.3f}")
    return [*rows, means]


def _relative(entry: Entry) -> str:
    text = f"{entry.relative_error:.2f}"
    if not entry.p_value < CLEAR:
        return text
    return f"**{text}**" if entry.gain > 0 else f"*{text}*"


def _against(other: str, found: Searches) -> list[str]:
    tests = [
        paired_test(search.finals("aft"), search.finals(other))
        for search in found.values()
        if {"aft", other} <= set(search.entries)
    ]
    gains = [gain for gain, _ in tests]
    better = sum(gain > 0 and p < CLEAR for gain, p in tests)
    worse = sum(gain < 0 and p < CLEAR for gain, p in tests)
    p_value = float(ttest_1samp(gains, 0).pvalue) if len(gains) > 1 else math.nan
    mean = 100 * statistics.fmean(gains)
    return [method_title(other), str(len(tests)), str(better), str(worse), f"{mean:+.2f}", _p(p_value)]


def _detail(search: Found) -> str:
    rows = []
    for entry in sorted(search.entries.values(), key=lambda entry: entry.test_error):
        beta = f"{entry.beta:g}" if entry.teachers else ""
        gain = "" if math.isnan(entry.gain) else f"{100 * entry.gain:+.2f}"
        rows.append([entry.title, beta, f"{100 * entry.val_accuracy:.2f}", _accuracy(entry), gain, _p(entry.p_value)])
    return _table(["method", "beta", "validation, %", "test, %", "paired gain, points", "p"], rows)


# ---- better teachers, several teachers --------------------------------------------------------------------------------


def _teachers(found: Searches, folder: Path) -> list[str]:
    alone, singles = found.get("none"), {name: search for name, search in found.items() if name != "none"}
    if alone is None or not singles:
        return []
    ordered = sorted(singles.items(), key=lambda item: item[1].made["probe_all_labels"])
    probes = [100 * search.made["probe_all_labels"] for _, search in ordered]
    accuracies = {m: [100 * search.entries[m].test_accuracy for _, search in ordered] for m in ("kd", "aft")}
    standard = 100 * alone.entries["none"].test_accuracy
    draw_teachers(folder / "results-teachers.png", [name for name, _ in ordered], probes, accuracies, standard)
    rows = [
        [name, f"{probe:.1f}", *(_accuracy(search.entries[method]) for method in ("kd", "aft"))]
        for (name, search), probe in zip(ordered, probes, strict=True)
    ]
    correlations = [
        f"{method_title(method)} {test.statistic:.2f} (p {_p(test.pvalue)})"
        for method, values in accuracies.items()
        if len(values) > 2
        for test in [pearsonr(probes, values)]
    ]
    return [
        "One student and seven teachers of the same digits, 10 labels per class: noise, the pixels themselves, one network at"
        f" three resolutions, two others. Standard transfer: {_accuracy(alone.entries['none'])} %.",
        _table(["teacher", "linear head, all labels, validation %", "KD, test %", "AFT, test %"], rows),
        f"Pearson's r between the two accuracies, over {len(ordered)} teachers: {', '.join(correlations)}. Figure 1c of the"
        " paper, read off: AFT 0.97, KD 0.72.",
        "![Student against teacher accuracy](results-teachers.png)",
    ]


def _combinations(found: Searches, folder: Path) -> list[str]:
    alone, used = found.get("none"), {name: search for name, search in found.items() if name != "none"}
    if alone is None or not used:
        return []
    rows = []
    for name, search in used.items():
        parts = name.split(" + ")
        without = " + ".join(part for part in parts if part != "noise")
        cells = []
        for method in ("kd", "aft"):
            known = [used[part] for part in parts if part in used]
            best = max(known, key=lambda one: one.entries[method].val_accuracy, default=None)
            reference = used.get(without) if "noise" in parts else best
            cells.append(_accuracy(search.entries[method]))
            cells.append(_gain(search, reference, method) if len(parts) > 1 and reference is not None else "")
        rows.append([name, *cells])
    return [
        "Gains are over the best single one of the teachers (by validation); where noise of 2,048 dimensions was added, over the"
        " same teachers without it.",
        _table(["teachers", "KD, test %", "gain, points", "AFT, test %", "gain, points"], rows),
    ]


def _gain(search: Found, reference: Found, method: str) -> str:
    gain, p_value = paired_test(search.finals(method), reference.finals(method))
    return f"{100 * gain:+.2f}, p {_p(p_value)}"


# ---- ablations and cost -----------------------------------------------------------------------------------------------


def _ablations(found: Searches, folder: Path) -> list[str]:
    if (base := found.get("digits-5")) is None:
        return []
    rows = [_variant(method_title(method), base, method, base) for method in ("none", "aft")]
    rows += [_variant(n, search, next(iter(search.entries)), base) for n, search in found.items() if search is not base]
    return [
        "On `digits-5`, each with strengths of its own chosen on validation.",
        _table(["variant", "beta", "test, %", "over standard transfer, points", "over AFT, points"], rows),
    ]


def _variant(title: str, search: Found, method: str, base: Found) -> list[str]:
    entry, cells = search.entries[method], []
    for reference in ("none", "aft"):
        gain, p_value = paired_test(search.finals(method), base.finals(reference))
        is_itself = search is base and method == reference
        cells.append("" if is_itself else f"{100 * gain:+.2f}, p {_p(p_value)}")
    return [title, f"{entry.beta:g}" if entry.teachers else "", _accuracy(entry), *cells]


def _overhead(found: Searches, folder: Path) -> list[str]:
    if not found:
        return []
    names = [method for method in METHODS if any(method in search.step_ms for search in found.values())]
    rows = [
        [f"`{name}`", *(f"{search.step_ms[m]:.1f}" if m in search.step_ms else "" for m in names)]
        for name, search in found.items()
    ]
    return [
        "Milliseconds per training step, one core, median over the final runs; two trials ran side by side. The students are"
        " tiny, which makes the share of any regularizer look large.",
        _table(["setting", *map(method_title, names)], rows),
    ]


SECTIONS: dict[str, tuple[str, Section]] = {
    "methods": ("AFT against the alternatives", _methods),
    "teachers": ("Do better teachers make better students?", _teachers),
    "combinations": ("Several teachers, and a harmful one", _combinations),
    "ablations": ("What of AFT is needed", _ablations),
    "overhead": ("What a step costs", _overhead),
}


def _accuracy(entry: Entry) -> str:
    return f"{100 * entry.test_accuracy:.2f} ± {100 * entry.test_accuracy_se:.2f}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
