"""The statistics of the report: means, standard errors, gains, correlations and the chosen settings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aft_ray.recipe.config import Recipe
from aft_ray.report.pictures import draw_contributions, draw_quality
from aft_ray.report.reading import findings
from aft_ray.report.results import summarize
from tests.helpers.report import PROBES, finals, searched, trial, write_search


def test_leaderboard_has_means_and_standard_errors_of_the_final_runs(recipe: Recipe) -> None:
    write_search(recipe, searched() + finals())
    first, second, third = findings(recipe).entries
    assert [first.method, second.method, third.method] == ["aft", "kd", "none"]
    assert (first.beta, first.teachers, first.num_seeds) == (10.0, ("small", "large"), 3)
    assert first.test == pytest.approx(0.91)
    assert first.test_se == pytest.approx(0.01 / math.sqrt(3))  # deviations -0.01, 0, 0.01
    assert first.relative_error == pytest.approx(0.09 / 0.16)
    assert first.relative_error_se == pytest.approx(math.sqrt(0.0003) / math.sqrt(3) / 0.16)  # gains 0.06, 0.06, 0.09
    assert third.relative_error == pytest.approx(1)


def test_the_winner_is_named_where_another_method_is_ahead_on_test(recipe: Recipe) -> None:
    rows = finals()
    for row in rows:
        row["test_accuracy"] -= 0.2 * (row["regularizer.name"] == "aft")
    write_search(recipe, searched() + rows)
    assert findings(recipe).remarks[0].startswith("The winner, the student to use, is AFT: validation chose it")


def test_what_a_teacher_adds_is_a_mean_over_the_combinations_with_and_without_it() -> None:
    """Best of AFT: small 0.80, large 0.83, both 0.86; standard transfer 0.80."""
    picture = next(picture for picture in draw_contributions(searched()) if "AFT" in picture)
    assert "large +4.5; small +1.5" in picture  # (3 + 6) / 2 and (0 + 3) / 2 points
    alone = [row for row in searched() if len(row["teachers"]) < 2 and row["regularizer.name"] != "none"]
    assert draw_contributions(alone) == []


def test_probes_and_students_are_correlated_over_four_combinations_or_more() -> None:
    aft, _ = draw_quality(searched(), PROBES)
    students = [80.0, 83.0, 86.0]
    assert "3 combinations of teachers: too few for a correlation." in aft and "r =" not in aft
    assert draw_quality(searched(), {("small",): 0.5}) == []
    more = [*searched(), trial("search", "aft", 1.0, ("third",), val_accuracy=0.75)]
    expected = np.corrcoef([50.0, 70.0, 80.0, 60.0], [*students, 75.0])[0, 1]
    assert f"4 combinations of teachers: r = {expected:.2f}." in draw_quality(more, PROBES | {("third",): 0.6})[0]


def test_gains_are_paired_by_seed() -> None:
    rows = finals()
    for row in rows:  # seeds differ much, the gain of a seed does not
        row["test_accuracy"] = 0.7 + 0.05 * row["seed"] + {"none": 0.0, "kd": 0.0, "aft": 0.02}[row["regularizer.name"]]
    rows[-1]["test_accuracy"] += 0.001
    entries = {entry.method: entry for entry in summarize(rows)}
    assert entries["aft"].gain == pytest.approx(0.02 + 0.001 / 3) and entries["aft"].p_value < 0.001
    assert (entries["kd"].gain, entries["kd"].p_value) == (pytest.approx(0.0), 1.0)
    assert math.isnan(entries["none"].gain) and entries["aft"].test_se > 0.02


def test_a_setting_has_all_searched_keys_and_is_chosen_by_its_mean_over_seeds() -> None:
    rows = [
        trial("search", "aft", 1.0, ("small",), seed, val_accuracy=accuracy, **{"train.learning_rate": rate})
        for rate, accuracies in ((0.1, (0.9, 0.5)), (0.2, (0.8, 0.8)))
        for seed, accuracy in enumerate(accuracies)
    ]
    (entry,) = summarize(rows)
    assert entry.others == (("train.learning_rate", 0.2),) and entry.validation == pytest.approx(0.8)
    assert entry.setting == "beta 1, small, train.learning_rate 0.2"
