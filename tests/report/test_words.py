"""The headline claims no more than the paired test of its table, and remarks say where the search's choice is weak."""

from __future__ import annotations

from typing import Any

import pytest

from aft_ray.recipe.search_section import Range
from aft_ray.report.results import Entry, summarize
from aft_ray.report.words import compare, headline, left_out, remarks, winner_in_words
from aft_ray.search.trials import TrialRow
from tests.helpers.report import finals, searched, trial

VALIDATION: dict[str, Any] = {"num_samples": 500, "num_unlabelled": 0, "samples_per_class": {"cat": 250, "dog": 250}}


def entry(method: str, accuracies: list[float], first_seed: int = 1) -> Entry:
    rows = [
        trial("final", method, 1.0, (), seed, test_accuracy=accuracy)
        for seed, accuracy in enumerate(accuracies, start=first_seed)
    ]
    return summarize(rows)[0]


@pytest.mark.parametrize(
    ("left", "right", "verdict"),
    [
        (
            [0.90, 0.91, 0.92],
            [0.84, 0.85, 0.83],
            "points, paired by seed, is 7.0 times its standard error (p 0.020): more than seeds explain",
        ),
        ([0.90, 0.91, 0.92], [0.90, 0.90, 0.91], "within the noise of seeds"),
        (
            [0.80, 0.85, 0.90],
            [0.78, 0.83, 0.875],
            "more than seeds explain",
        ),  # Welch's test sees noise: seeds differ much
        ([0.9, 0.9], [0.8, 0.8], "the same in every seed (p below 0.001): more than seeds explain"),
        ([0.9, 0.9], [0.9, 0.9], "within the noise of seeds"),
        ([0.9], [0.8, 0.81], "one seed has no standard error: this shows no difference"),
    ],
)
def test_a_win_is_claimed_only_beyond_noise(left: list[float], right: list[float], verdict: str) -> None:
    assert verdict in compare(entry("aft", left), entry("none", right))


def test_the_headline_and_the_table_have_one_test() -> None:
    entries = summarize(finals())
    best = entries[0]
    assert f"(p {best.p_value:.3f})" in headline(entries) and f"{100 * best.gain:.1f} points" in headline(entries)


def test_the_headline_is_of_the_setting_that_validation_chose_not_of_the_luckiest_on_test() -> None:
    lucky = [
        trial("search", "aft", 7.0, ("small",), val_accuracy=0.1),
        *(trial("final", "aft", 7.0, ("small",), seed, test_accuracy=0.99) for seed in (1, 2, 3)),
    ]
    entries = summarize([*searched(), *finals(), *lucky])
    assert (entries[0].test, entries[0].is_chosen) == (pytest.approx(0.99), False)
    chosen = [entry for entry in entries if entry.is_chosen]
    assert sorted(entry.method for entry in chosen) == ["aft", "kd", "none"]
    assert headline(chosen) == headline(summarize([*searched(), *finals()]))


def test_runs_with_other_seeds_show_no_difference() -> None:
    text = compare(entry("aft", [0.9, 0.91]), entry("none", [0.8, 0.81], first_seed=7))
    assert "no two seeds in common: this shows no difference" in text


def test_the_headline_names_the_best_method_even_if_it_is_not_aft() -> None:
    names = {"aft": "kd", "kd": "aft", "none": "none"}
    text = headline(summarize([row | {"regularizer.name": names[row["regularizer.name"]]} for row in finals()]))
    assert text.startswith("KD: 9.0 % test error against 16.0 % of standard transfer")
    assert "AFT: 13.0 % test error against 9.0 % of KD" in text


def test_a_winner_that_test_did_not_confirm_is_explained() -> None:
    rows = [
        *(
            trial("search", name, 1.0, (), val_accuracy=value)
            for name, value in (("aft", 0.96), ("kd", 0.95), ("none", 0.94))
        ),
        *(trial("final", "aft", 1.0, (), seed, test_accuracy=0.79) for seed in (1, 2)),
        *(trial("final", "kd", 1.0, (), seed, test_accuracy=0.84) for seed in (1, 2)),
        *(trial("final", "none", 1.0, (), seed, test_accuracy=0.81) for seed in (1, 2)),
    ]
    entries = summarize(rows)
    assert winner_in_words(entries, "kd") == "" and winner_in_words(entries, "absent") == ""
    told = winner_in_words(entries, "aft")
    assert "is AFT: validation chose it (accuracy 96.0 %, KD 95.0 %), and test takes no part" in told
    simplest = winner_in_words(entries, "none")
    assert "standard transfer: validation chose it (accuracy 94.0 %, KD 95.0 %, within a standard error)" in simplest


def said(rows: list[TrialRow], betas: Any = (1.0, 10.0), **validation: Any) -> str:
    return " ".join(remarks(rows, summarize(rows), lambda method: betas, VALIDATION | validation))


def test_a_beta_at_the_edge_of_its_grid_is_told() -> None:
    assert said(searched()) == (
        "The beta 10 of AFT is at the edge of its grid (1 to 10): a higher one may be better. Widen search.beta."
        " The beta 10 of KD is at the edge of its grid (1 to 10): a higher one may be better. Widen search.beta."
    )
    assert said(searched(), (1.0, 10.0, 30.0)) == ""  # the search was stopped before it came to 30
    assert said(searched(), Range(min=1, max=10)) == ""
    low = [row | {"regularizer.beta": 11 - row["regularizer.beta"]} for row in searched() if row["teachers"]]
    assert "The beta 1 of AFT is at the edge of its grid (1 to 10): a lower one may be better." in said(low)
    zero = [row | {"regularizer.beta": row["regularizer.beta"] - 1} for row in low]
    assert said(zero, (0.0, 9.0)) == ""  # nothing is below 0
    assert said([row for row in searched() if row["regularizer.beta"] == 10], (10.0,)) == ""


def test_students_that_have_learned_nothing_are_told() -> None:
    rows = [row | {"val_accuracy": 0.62} for row in searched() if row["status"] != "failed"]
    largest = {"samples_per_class": {"cat": 310, "dog": 190}}
    told = "All settings tie at 62.0 % validation accuracy, the share of the largest class"
    assert told in said(rows, **largest)
    rows[3]["val_accuracy"] = 0.628
    assert told not in said(rows, **largest)
    assert told not in said([row | {"val_accuracy": 0.62} for row in rows], samples_per_class={"cat": 250, "dog": 250})


def test_few_validation_samples_are_told() -> None:
    told = "Only 36 validation samples choose between the settings: one of them is 2.8 points."
    assert told in said(searched(), num_samples=40, num_unlabelled=4)
    assert "validation samples choose" not in said(searched(), num_samples=100)
    assert "validation samples choose" not in said(searched()[:1], num_samples=36)  # one setting: nothing is chosen


def test_a_regression_is_told_by_its_loss() -> None:
    rows = [
        row | {"val_loss": row["val_accuracy"], "val_accuracy": None} for row in searched() if row["status"] != "failed"
    ]
    assert "Only 36 validation samples choose between the settings. See" in said(rows, num_samples=36)
    text = headline(summarize(rows))
    assert text.startswith("AFT (beta 1, small) has the best validation loss of the search, 0.71.")
    tests = [
        row | {"test_loss": 1 - row["test_accuracy"], "test_accuracy": None, "val_accuracy": None, "val_loss": 0.5}
        for row in finals()
    ]
    text = headline(summarize(rows + tests))
    assert text.startswith(
        "AFT: 0.09 test loss against 0.16 of standard transfer (3 seeds). The difference of 0.07, paired"
    )


def test_teachers_that_were_left_out_are_named() -> None:
    def line(**r2: float) -> dict[str, float]:
        return {f"r2/{name}": value for name, value in r2.items()} | {f"least_r2/{name}": 0.02 for name in r2}

    good, once, none = line(cat=0.4, noise=0.01), line(cat=0.4, noise=0.03), line(cat=0.01, noise=0.0)
    assert left_out("AFT with probes", [once, once]) == left_out("AFT", [{"loss": 1.0}]) == ""
    assert "left out noise: the features say nothing" in left_out("AFT with probes", [good, good])
    assert "left out noise in 1 of 2 runs:" in left_out("AFT with probes", [good, once])
    told = left_out("AFT with probes", [good, none])
    assert "left out cat in 1 of 2 runs, noise: the" in told and "standard transfer in 1 of 2 runs" in told
