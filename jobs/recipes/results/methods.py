"""AFT and our methods against the alternatives, setting by setting and on average: sections of docs/results.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aft_ray.report.results import Entry, TrialRow, method_title, paired_test, t_test
from aft_ray.report.words import CLEAR
from aft_ray.study.averages import compared as duel
from aft_ray.study.averages import is_clear, mean_of
from aft_ray.study.found import Found
from aft_ray.study.grids import ends, remarks
from aft_ray.training.best import Measure
from jobs.recipes.results.pictures import draw_methods
from jobs.recipes.results.text import OURS, PAPER, Settings, accuracy, chance, compared, days, table, title


def methods_in_short(found: Settings) -> list[str]:
    """The comparison in some sentences."""
    names = compared(found.values())
    alike = [one for one in found.values() if set(names) <= set(one.chosen)]
    means = {method: mean_of(method, alike).relative_error for method in names[1:] if alike}
    ranked = ", ".join(f"{title(method)} {value:.2f}" for method, value in sorted(means.items(), key=lambda i: i[1]))
    over = f"All methods over the {_settings(len(alike))} that {'has' if len(alike) == 1 else 'have'} them all"
    return [*verdicts(found), *([f"{over}, least error first: {ranked}."] if ranked else [])]


def verdicts(found: Settings) -> list[str]:
    """The effect of AFT and our methods on standard transfer's error, with every setting that became worse."""
    return [_verdict(method, found) for method in ("aft", *OURS) if mean_of(method, [*found.values()]).num_settings]


def _verdict(method: str, found: Settings) -> str:
    mean = mean_of(method, [*found.values()])
    entries = {name: one.chosen[method] for name, one in found.items() if method in one.chosen}
    higher = [f"`{name}` {entry.relative_error:.2f}" for name, entry in entries.items() if entry.gain < 0]
    paper = f"; the paper's: {PAPER[method]}" if method in PAPER else ""
    left_out = f" (not run on {len(found) - len(entries)} others)" if len(entries) < len(found) else ""
    return (
        f"**{title(method)}: error {mean.relative_error:.2f} ± {mean.over_seeds:.2f} of standard transfer's** over"
        f" {_settings(len(entries))}{left_out}, {mean.over_data:.2f} over data sets{paper}. Clearly less (p < {CLEAR}) in"
        f" {mean.better}, by Holm's correction in {mean.holm}; clearly more in {mean.worse}."
        f" {'Above 1: ' + ', '.join(higher) + '.' if higher else 'Nowhere above 1.'}"
    )


def _settings(count: int) -> str:
    return f"{count} setting{'s' * (count > 1)}"


def protocol_section(found: Settings, folder: Path) -> list[str]:
    """Every setting over its splits, its relative errors, and AFT and ours paired with each other method; draws the picture."""
    if not found:
        return []
    names = compared(found.values())
    draw_methods(folder / "results-methods.png", [*found.values()], names)
    intervals = [
        [title(mean.method), f"{mean.over_data:.3f}", f"{mean.low:.3f} to {mean.high:.3f}", str(mean.num_settings)]
        for mean in (mean_of(method, [*found.values()]) for method in names[1:])
    ]
    return [
        *_tables(found, names),
        "Mean over data sets, with its interval of 95 % by bootstrap over data sets, where there are four or more.",
        table(["method", "relative error", "interval", "settings"], intervals),
        "![Relative errors of every method, mean and settings](results-methods.png)",
        _ends(found, names),
        *_between_splits([one for one in found.values() if one.splits > 1], names),
        *_tuning([*found.values()]),
        *(part for method in ("aft", *OURS) if method in names for part in _against_all(method, found, names)),
        *_details(found),
    ]


def earlier_section(found: Settings, folder: Path) -> list[str]:
    """The settings of before the protocol."""
    if not found:
        return []
    return [
        "Ran before the protocol above, and are less fair: steps and rates were tuned for standard transfer and handed to all,"
        " two seeds chose a strength, one split. Two methods of ours were found on validation splits of digits, clothes, reviews"
        " and glosses, which flatters them here; they and the other methods ran on different days, with the same seeds and"
        " samples. Five fresh seeds see test.",
        *_tables(found, compared(found.values())),
        *_tuning([*found.values()]),
    ]


def _tuning(found: Sequence[Found]) -> list[str]:
    """What was tuned, and which choices lie at the end of their grid."""
    return ["\n".join(f"- {sentence}" for sentence in remarks(found))]


def _ends(found: Settings, names: Sequence[str]) -> str:
    """How often validation chose the first or last strength that a method had: others beyond it might do better."""
    told = []
    for method in ("aft", *OURS):
        if method in names:
            reached = ends(found.values(), method)
            chosen = [one.chosen[method].beta for one in found.values() if method in one.chosen]
            low, high = (f"{beta:g} {chosen.count(beta)}" for beta in (reached.low, reached.high))
            told.append(f"{method_title(method)} {low} and {high} times")
    return f"How often validation chose the lowest and the highest strength: {', '.join(told)}." if told else ""


def _between_splits(found: Sequence[Found], names: Sequence[str]) -> list[str]:
    """Whether nine gains of three splits are nine observations: by an analysis of variance within each setting."""
    known = [(one, one.chosen[method]) for one in found for method in names[1:] if method in one.chosen]
    if not known:
        return []
    between, within, stay = [], [], 0
    for one, entry in known:
        gains = np.array(gains_by_split(entry.finals, one.chosen["none"].finals, one.measure))
        spread = gains.var(ddof=1) or 1.0  # each comparison counts as much as the next
        between.append(gains.shape[1] * gains.mean(axis=1).var(ddof=1) / spread)
        within.append(gains.var(axis=1, ddof=1).mean() / spread)
        stay += entry.p_value < CLEAR and t_test([*gains.mean(axis=1)]).p_value < CLEAR
    clear = sum(entry.p_value < CLEAR for _, entry in known)
    return [
        "Seeds of one split share its samples and its tuned setting. Mean gains of splits vary"
        f" {sum(between) / sum(within):.1f} times as much as independent seeds would let them (ratio of mean squares, over"
        f" {len(known)} comparisons with standard transfer). With the mean of a split as one observation, few as they are, {stay}"
        f" of the {clear} clear differences stay clear."
    ]


def gains_by_split(rows: Sequence[TrialRow], others: Sequence[TrialRow], measure: Measure) -> list[list[float]]:
    """Gains on test of joined splits, paired by seed: a list for each split."""
    by_split: dict[int, list[float]] = {}
    for row in rows:
        by_split.setdefault(row["seed"][0], []).append(paired_test([row], others, measure).gain)
    return [*by_split.values()]


def _tables(found: Settings, names: Sequence[str]) -> list[str]:
    """What the settings are, and every method's relative error in each."""
    columns = ["setting", "data", "student", "labels", "train samples", "test samples"]
    return [
        table([*columns, "linear head on the teacher, %", "splits", "date"], [_setting(one) for one in found.values()]),
        "Relative errors, standard transfer's own test error in percent in front. **Bold** is a gain and *italic* a loss over"
        f" standard transfer with p < {CLEAR}.",
        table(["setting", "error, %", *map(title, names[1:])], _relative_errors(found, names)),
    ]


def _setting(found: Found) -> list[str]:
    counts = found.record.samples or {}
    head = found.record.probes[0]["with_own_labels"]
    told = [f"{counts[key]:,}" for key in ("labels", "train", "test")]
    return [f"`{found.name}`", found.data, found.student, *told, f"{100 * head:.1f}", str(found.splits), days(found)]


def _relative_errors(found: Settings, names: Sequence[str]) -> list[list[str]]:
    """A line per setting, their mean with the standard error that the seeds give it, the mean over data, and the paper's."""
    rows = []
    for name, one in found.items():
        cells = [_relative(one.chosen[method]) if method in one.chosen else "" for method in names[1:]]
        rows.append([f"`{name}`", f"{100 * one.chosen['none'].test_error:.1f}", *cells])
    means = [mean_of(method, [*found.values()]) for method in names[1:]]
    of = [f" of {mean.num_settings}" if mean.num_settings < len(found) else "" for mean in means]
    told = [f"{mean.relative_error:.3f} ± {mean.over_seeds:.3f}{few}" for mean, few in zip(means, of, strict=True)]
    return [
        *rows,
        ["**mean**", "", *told],
        ["mean over data sets", "", *(f"{mean.over_data:.3f}" for mean in means)],
        ["the paper's settings", "", *(str(PAPER.get(method, "")) for method in names[1:])],
    ]


def short_table(found: Settings) -> str:
    """The relative errors of every setting in one table, for a reader in a hurry."""
    there = {name: one for name, one in found.items() if "none" in one.chosen}
    names = [name for name in compared(there.values()) if name != "none"]
    rows = [
        [
            name,
            found_in_words(one),
            f"{100 * one.chosen['none'].test_error:.1f}",
            *(_relative(one.chosen[method]) if method in one.chosen else "" for method in names),
        ]
        for name, one in there.items()
    ]
    means = [mean_of(method, [*there.values()]) for method in names]
    last = ["**mean over data sets**", "", "", *(f"{mean.over_data:.2f}" for mean in means)]
    return table(["setting", "labels, student", "error of standard transfer, %", *map(title, names)], [*rows, last])


def found_in_words(found: Found) -> str:
    samples = found.record.samples or {}
    labels, train = samples["labels"], samples["train"]
    of = "all" if labels >= train else f"of {train:,}"
    return f"{labels:,} {of}, {'pretrained' if found.recipe.student.pretrained else 'from scratch'}"


def _relative(entry: Entry) -> str:
    text = f"{entry.relative_error:.2f}"
    return f"**{text}**" if is_clear(entry, 1) else f"*{text}*" if is_clear(entry, -1) else text


def _against_all(method: str, found: Settings, names: Sequence[str]) -> list[str]:
    own = title(method)
    columns = ["against", "settings", f"{own} clearly better", "clearly worse", "gain in accuracy, points"]
    duels = [duel(method, other, found.values()) for other in names if other != method]
    rows = [
        [
            method_title(d.other),
            *map(str, (d.num_settings, d.better, d.worse)),
            f"{100 * d.gain:+.2f}",
            chance(d.p_value),
        ]
        for d in duels
    ]
    return [
        f"{own} against each of the others, paired by seed. The last column is a t-test over settings, of the mean gain in each.",
        table([*columns, "p over settings"], rows),
    ]


def _details(found: Settings) -> list[str]:
    return [part for name, one in found.items() for part in (f"### `{name}`", _detail(one))]


def _detail(found: Found) -> str:
    rows = []
    for entry in sorted((found.chosen[method] for method in compared([found])), key=lambda entry: entry.test_error):
        beta = "" if not entry.teachers or math.isnan(entry.beta) else f"{entry.beta:g}"
        gain = "" if math.isnan(entry.gain) else f"{100 * entry.gain:+.2f}"
        cells = [beta, f"{100 * entry.validation:.2f}", accuracy(entry), gain, chance(entry.p_value)]
        rows.append([title(entry.method), *cells])
    return table(["method", "beta", "validation, %", "test, %", "paired gain, points", "p"], rows)
