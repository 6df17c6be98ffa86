"""What a reader may expect: gains by situation, what tells the cases apart, and whether advice from other data sets holds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from scipy.stats import spearmanr

from aft_ray.report.results import Entry, method_title
from aft_ray.search.knowledge import CLEAR_ALIGNMENT
from aft_ray.study.averages import is_clear
from aft_ray.study.found import STANDARD, Found
from jobs.recipes.results.text import OURS, Settings, chance, compared, table, title

METHODS = ("aft", *OURS)
ALL_LABELLED = 0.9
"""Share of the train samples with a label from which on we say that all have one."""
FEWEST_OTHERS = 2
"""Other data sets of a situation that may speak for it; with fewer, all other data sets do."""


def expect_section(found: Settings, folder: Path) -> list[str]:
    """Two tables and what follows from them."""
    known = _known(found)
    if not known:
        return []
    advised = [_advised(one, known) for one in known]
    return [
        "A situation is whether most samples lack a label and whether the student is pretrained. Relative errors, mean and range"
        " over the settings.",
        situations_table(found),
        "Before any training `rank` prints R2 of each teacher's probe and the alignment of its kernel with the labels (CKA); the"
        " linear head and standard transfer are accuracies on validation, with the same labels. *Advice* is the method with the"
        " least mean relative error on the other data sets in the same situation, and what it gives here; *by validation* is the"
        " method that the search itself would take.",
        table(
            [
                *("setting", "R2", "CKA", "linear head, %", "standard transfer, %"),
                *map(title, METHODS),
                *("advice", "it gives", "by validation", "it gives", "least"),
            ],
            [_row(one, advice) for one, advice in zip(known, advised, strict=True)],
        ),
        "\n".join(f"- {sentence}" for sentence in [*_held(known, advised), *_rank_holds(known), *_tells_apart(known)]),
    ]


def situations_table(found: Settings) -> str:
    """The gain of each method in each situation."""
    known = _known(found)
    columns = ["situation", "settings", *map(title, METHODS), "least of the others"]
    return table(columns, [*_by_situation(known)])


def expect_in_short(found: Settings) -> list[str]:
    """Whether the advice held, in a sentence."""
    known = _known(found)
    return _held(known, [_advised(one, known) for one in known])[:1] if known else []


def _known(found: Settings) -> list[Found]:
    """The settings in which something can be compared with standard transfer."""
    return [one for one in found.values() if STANDARD in one.chosen and len(one.chosen) > 1]


def situation(found: Found) -> str:
    samples = found.record.samples or {}
    all_labelled = samples["labels"] >= ALL_LABELLED * samples["train"]
    labels = "all samples have a label" if all_labelled else "few labels, other samples without"
    return f"{labels}; {'pretrained student' if found.recipe.student.pretrained else 'student from scratch'}"


def _by_situation(known: Sequence[Found]) -> Iterator[list[str]]:
    for name in dict.fromkeys(map(situation, known)):
        own = [one for one in known if situation(one) == name]
        others = [method for method in compared(own) if method not in (STANDARD, *METHODS)]
        means = {method: _mean(own, method) for method in others}
        best = min(means, key=lambda method: means[method], default=None)
        yield [
            name,
            ", ".join(f"`{one.name}`" for one in own),
            *(_spread(own, method) for method in METHODS),
            f"{method_title(best)} {_spread(own, best)}" if best else "",
        ]


def _mean(found: Sequence[Found], method: str) -> float:
    """Over data sets, each once, of the relative errors; 1 is standard transfer."""
    by_data: dict[str, list[float]] = {}
    for one in found:
        if method in one.chosen:
            by_data.setdefault(one.data, []).append(_relative(one, method))
    return statistics.fmean(statistics.fmean(own) for own in by_data.values()) if by_data else float("inf")


def _relative(found: Found, method: str) -> float:
    return 1.0 if method == STANDARD else found.chosen[method].relative_error


def _spread(found: Sequence[Found], method: str) -> str:
    values = sorted(_relative(one, method) for one in found if method in one.chosen)
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({values[0]:.2f} to {values[-1]:.2f})"


class Advice(NamedTuple):
    """The method that the other data sets speak for, the one that validation takes, and the one with the least test error."""

    of_others: str
    by_validation: str
    least: str


def _advised(one: Found, known: Sequence[Found]) -> Advice:
    """Without a look at the data set itself: all settings of the same data are left out."""
    others = [other for other in known if other.data != one.data]
    alike = [other for other in others if situation(other) == situation(one)]
    speaking = alike if len({other.data for other in alike}) >= FEWEST_OTHERS else others
    of_others = min(one.chosen, key=lambda method: _mean(speaking, method)) if speaking else STANDARD
    by_validation = max(one.chosen.values(), key=_validation).method
    return Advice(of_others, by_validation, min(one.chosen, key=lambda method: _relative(one, method)))


def _validation(entry: Entry) -> float:
    """Higher is better, and standard transfer wins where it is equal."""
    return -entry.measure.error_of(entry.validation) + 1e-12 * (entry.method == STANDARD)


def _row(one: Found, advice: Advice) -> list[str]:
    best = max(one.record.told, key=lambda teacher: teacher["r2"], default=None)
    heads = [probe["with_own_labels"] for probe in one.record.probes if "with_own_labels" in probe]
    return [
        f"`{one.name}`",
        f"{best['r2']:.2f}" if best else "",
        f"{best['alignment']:.2f}" if best and "alignment" in best else "",
        f"{100 * max(heads):.1f}" if heads else "",
        f"{100 * one.chosen[STANDARD].validation:.1f}",
        *(f"{_relative(one, method):.2f}" if method in one.chosen else "" for method in METHODS),
        *(told for method in advice[:2] for told in (method_title(method), f"{_relative(one, method):.2f}")),
        f"{method_title(advice.least)} {_relative(one, advice.least):.2f}",
    ]


def _held(known: Sequence[Found], advised: Sequence[Advice]) -> list[str]:
    """Would the advice have chosen well on data that it has not seen?"""

    def mean(methods: Sequence[str]) -> str:
        by_data: dict[str, list[float]] = {}
        for one, method in zip(known, methods, strict=True):
            by_data.setdefault(one.data, []).append(_relative(one, method))
        return f"{statistics.fmean(map(statistics.fmean, by_data.values())):.2f}"

    harmful = [
        f"`{one.name}`"
        for one, advice in zip(known, advised, strict=True)
        if advice.of_others != STANDARD and is_clear(one.chosen[advice.of_others], -1)
    ]
    always = ", ".join(
        f"{title(method)} {mean([method] * len(known))}"
        for method in METHODS
        if all(method in one.chosen for one in known)
    )
    return [
        f"Advice from the other data sets, one left out at a time: error {mean([a.of_others for a in advised])} of standard"
        f" transfer's, mean over data sets; the method that validation takes {mean([a.by_validation for a in advised])}; the"
        f" least that any of the methods gives, known only afterwards, {mean([a.least for a in advised])}. Always the same"
        f" method: {always}. Advice that made a student clearly worse (p < 0.05): {', '.join(harmful) or 'none'}."
    ]


def _rank_holds(known: Sequence[Found]) -> list[str]:
    """Does AFT help where `rank` says that it can?"""
    told = {one.name: max(t.get("alignment", 0.0) for t in one.record.told) for one in known if one.record.told}
    sides = [
        [
            one
            for one in known
            if one.name in told and "aft" in one.chosen and (told[one.name] >= CLEAR_ALIGNMENT) == can
        ]
        for can in (True, False)
    ]
    if not all(sides):
        return []
    can, cannot = (f"{_spread(side, 'aft')} in {len(side)}" for side in sides)
    return [
        f"`rank` says that plain AFT can help where CKA is {CLEAR_ALIGNMENT} or more: AFT's relative error is {can} such"
        f" settings, and {cannot} others."
    ]


def _tells_apart(known: Sequence[Found]) -> list[str]:
    """Rank correlations of what is known before training with the relative errors."""
    known = [one for one in known if one.record.told]
    best = {one.name: max(one.record.told, key=lambda teacher: teacher["r2"]) for one in known}
    heads = {one.name: max(probe.get("with_own_labels", 0.0) for probe in one.record.probes) for one in known}
    facts = {
        "R2": [best[one.name]["r2"] for one in known],
        "CKA": [best[one.name].get("alignment", 0.0) for one in known],
        "linear head minus standard transfer": [heads[one.name] - one.chosen[STANDARD].validation for one in known],
    }
    if len(known) < 5:
        return []
    sentences = []
    for fact, values in facts.items():
        told = []
        for method in METHODS:
            if all(method in one.chosen for one in known):
                test = spearmanr(values, [_relative(one, method) for one in known])
                told.append(f"{method_title(method)} {test.statistic:+.2f} (p {chance(test.pvalue)})")
        sentences.append(
            f"Rank correlation of {fact} with the relative error over {len(known)} settings: {', '.join(told)}."
        )
    return sentences
