"""The findings of a search in sentences: the headline, and remarks on how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aft_ray.recipe.search_section import Betas, Range
from aft_ray.regularizers.fitted_probes import is_useful
from aft_ray.report.results import Entry, Training, paired_test
from aft_ray.search.trials import TrialRow, setting_key
from aft_ray.store.manifest import num_labelled
from aft_ray.training.best import ACCURACY, Measure, score

CLEAR = 0.05
"""p-value below which a difference is more than seeds explain."""
FEW_SAMPLES = 100


def headline(entries: Sequence[Entry]) -> str:
    """The best method against standard transfer, and AFT against the best where AFT is not the best."""
    tested = [entry for entry in entries if entry.finals]
    if not entries:
        return "No trial has a score."
    if not tested:
        best, measure = entries[0], entries[0].measure
        return (
            f"{best.title}{f' ({best.setting})' if best.setting else ''} has the best validation {measure.name} of the search,"
            f" {measure.amount(best.validation)}. Final runs, the only ones that see the test split, are missing."
        )
    best, *others = tested
    if not others:
        seeds = f"{best.num_seeds} seed{'s' if best.num_seeds > 1 else ''}"
        return f"{best.title}: {_error(best)} ({seeds}), with no other method to compare."
    reference = next((entry for entry in others if entry.method == "none"), others[0])
    sentences = [compare(best, reference)]
    sentences += [compare(entry, best) for entry in others if entry.method == "aft" and entry is not reference]
    return " ".join(sentences)


def runs_in_words(runs: Sequence[Training], measure: Measure) -> str:
    """The best of some runs, for a workspace without a search that has results."""
    if not runs:
        return "No trial has a score; the reasons are below."
    run = max(runs, key=lambda run: score(run.best))
    text = f"Run {run.name} ({run.title})"
    validation, test = run.validation(measure), run.test(measure)
    if not math.isnan(validation):
        text += f": {measure.amount(validation)} validation {measure.name}"
    if math.isnan(test):
        return f"{text}; it has not reached the test split."
    return (
        f"{text}, {measure.amount(measure.error_of(test))} test {measure.error}. One run alone has no standard error."
    )


def compare(entry: Entry, other: Entry) -> str:
    """Both test errors, and whether they differ by more than seeds explain, in a t-test paired by seed."""
    measure = entry.measure
    errors = f"{entry.title}: {_error(entry)} against {measure.amount(other.test_error)} of {other.title}"
    if min(entry.num_seeds, other.num_seeds) < 2:
        return f"{errors}, but one seed has no standard error: this shows no difference."
    paired = paired_test(entry.finals, other.finals, measure)
    if math.isnan(paired.p_value):
        return f"{errors}, but their final runs have no two seeds in common: this shows no difference."
    times = (
        "the same in every seed" if not paired.se else f"{abs(paired.gain) / paired.se:.1f} times its standard error"
    )
    clear = paired.p_value < CLEAR
    verdict = "more than seeds explain" if clear else "within the noise of seeds, so neither is ahead"
    return (
        f"{errors} ({' and '.join(str(n) for n in dict.fromkeys((entry.num_seeds, other.num_seeds)))} seeds)."
        f" The difference of {measure.difference(abs(paired.gain))}, paired by seed, is {times}"
        f" (p {chance(paired.p_value)}): {verdict}."
    )


def remarks(
    trials: Sequence[TrialRow],
    entries: Sequence[Entry],
    betas: Callable[[str], Betas],
    validation: Mapping[str, Any] | None,
) -> list[str]:
    """Sentences on how far the search's choice can be trusted; empty where nothing speaks against it.

    betas: the recipe's strengths of a method. validation: the manifest of the validation split.
    """
    searched = [row for row in trials if row["stage"] == "search" and score_is_known(row)]
    found = [_at_the_edge(entry, searched, betas(entry.method)) for entry in entries]
    if validation and len({setting_key(row) for row in searched}) > 1:
        found += [_nothing_learned(searched, validation), _few_samples(searched, validation)]
    return [sentence for sentence in found if sentence]


def winner_in_words(entries: Sequence[Entry], winner: str) -> str:
    """Why the winner of a search is not the best on test; empty where it is. winner: its method."""
    tested = [entry for entry in entries if entry.finals]
    own = next((entry for entry in tested if entry.method == winner), None)
    if own is None or own is tested[0]:
        return ""
    best, measure = tested[0], own.measure
    within = (
        "" if measure.error_of(own.validation) <= measure.error_of(best.validation) else ", within a standard error"
    )
    return (
        f"The winner, the student to use, is {own.title}: validation chose it ({measure.name} {measure.amount(own.validation)},"
        f" {best.title} {measure.amount(best.validation)}{within}), and test takes no part in the choice."
    )


def left_out(title: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Teachers that a method left out because they know nothing about the labels, from a line of metrics of each run."""
    names = dict.fromkeys(key.removeprefix("r2/") for line in lines for key in line if key.startswith("r2/"))
    useless = {name: [line for line in lines if not is_useful(line, name)] for name in names}
    told = [
        f"{name}{f' in {len(found)} of {len(lines)} runs' if len(found) < len(lines) else ''}"
        for name, found in useless.items()
        if found
    ]
    off = [line for line in lines if names and not any(is_useful(line, name) for name in names)]
    if not told:
        return ""
    text = f"{title} left out {', '.join(told)}: the features say nothing about the labels beyond chance."
    return f"{text} With no teacher left, it was standard transfer in {len(off)} of {len(lines)} runs." if off else text


def score_is_known(row: TrialRow) -> bool:
    return row.get("val_accuracy") is not None or row.get("val_loss") is not None


def _error(entry: Entry) -> str:
    return f"{entry.measure.amount(entry.test_error)} test {entry.measure.error}"


def chance(p_value: float) -> str:
    """A p-value; a dash for NaN."""
    if math.isnan(p_value):
        return "–"
    return "below 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _at_the_edge(entry: Entry, searched: Sequence[TrialRow], betas: Betas) -> str:
    """Empty for a beta inside its grid, for a range, and at zero, below which there is nothing."""
    if isinstance(betas, Range) or not entry.teachers:
        return ""
    grid = sorted({*betas, *(row["regularizer.beta"] for row in searched if row["regularizer.name"] == entry.method)})
    if len(grid) < 2 or entry.beta not in (grid[0], grid[-1]) or not entry.beta:
        return ""
    beyond = "lower" if entry.beta == grid[0] else "higher"
    return (
        f"The beta {entry.beta:g} of {entry.title} is at the edge of its grid ({grid[0]:g} to {grid[-1]:g}):"
        f" a {beyond} one may be better. Widen search.beta."
    )


def _nothing_learned(searched: Sequence[TrialRow], validation: Mapping[str, Any]) -> str:
    counts = validation.get("samples_per_class") or {}
    labelled = sum(counts.values())
    if not labelled or validation.get("task", "classification") != "classification":
        return ""
    share = max(counts.values()) / labelled
    accuracies = [row["val_accuracy"] for row in searched]
    if any(value is None or abs(value - share) * labelled > 0.5 for value in accuracies):
        return ""
    return (
        f"All settings tie at {ACCURACY.amount(share)} validation accuracy, the share of the largest class: no student has"
        " learned to tell the classes apart. Train longer, or change train.learning_rate."
    )


def _few_samples(searched: Sequence[TrialRow], validation: Mapping[str, Any]) -> str:
    count = num_labelled(validation)
    if not 0 < count < FEW_SAMPLES:
        return ""
    worth = f": one of them is {100 / count:.1f} points" if searched[0].get("val_accuracy") is not None else ""
    return f"Only {count} validation samples choose between the settings{worth}. See dataset.validation_fraction."
