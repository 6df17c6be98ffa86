"""Which setting and which method wins, on validation alone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aft_ray.search.best import Choice, best_of_each, best_settings, winner
from aft_ray.search.trials import TrialRow


def row(
    method: str, beta: float, accuracy: float | None, loss: float | None, teachers: tuple[str, ...] = ("a",)
) -> TrialRow:
    of = () if method == "none" else teachers
    return {
        "stage": "search",
        "regularizer.name": method,
        "regularizer.beta": beta,
        "teachers": list(of),
        "val_accuracy": accuracy,
        "val_loss": loss,
    }


def chosen(rows: list[TrialRow], metric: str | None = None, **options: Any) -> tuple[float, tuple[str, ...]]:
    _, beta, teachers, _ = best_settings(rows, metric, **options)["aft"].key
    return beta, teachers


def test_settings_are_compared_by_the_mean_over_their_seeds() -> None:
    rows = [row("aft", 1, 0.9, 0.5), row("aft", 1, 0.5, 0.5), row("aft", 2, 0.8, 0.9), row("aft", 2, 0.7, 0.9)]
    assert chosen(rows)[0] == 2 and chosen(rows, "val_loss")[0] == 1
    assert chosen([row("aft", 1, None, 3.0), row("aft", 2, None, 2.0), row("aft", 3, None, math.nan)])[0] == 2


def test_ties_are_broken_by_the_loss_and_then_by_the_simpler() -> None:
    assert chosen([row("aft", 3, 0.9, 0.4), row("aft", 1, 0.9, 0.3), row("aft", 2, 0.9, 0.5)]) == (1, ("a",))
    same = [row("aft", 3, 0.9, 0.4, ("a", "b")), row("aft", 3, 0.9, 0.4), row("aft", 1, 0.9, 0.4, ("a", "b"))]
    assert chosen(same) == (3, ("a",))
    assert chosen([row("aft", 3, 0.9, 0.4), row("aft", 1, 0.9, 0.4)]) == (1, ("a",))


def test_trials_that_failed_or_saw_the_test_split_choose_nothing() -> None:
    rows = [row("aft", 1, None, None), row("aft", 2, 0.5, 0.7), row("aft", 3, 0.9, 0.1) | {"stage": "final"}]
    assert chosen(rows)[0] == 2


def test_a_lucky_seed_of_no_finalist_chooses_nothing() -> None:
    rows = [row("aft", 1, 0.9, 0.5), row("aft", 2, 0.8, 0.5), row("aft", 2, 0.7, 0.5), row("none", 0, 0.5, 0.5)]
    assert chosen(rows)[0] == 2
    # A failed trial counts as a trial: its setting was a finalist.
    assert chosen([row("aft", 1, 0.9, 0.5), row("aft", 1, None, None), *rows[1:3]])[0] == 1
    kept = best_of_each("method", [rows[0], row("aft", 3, 0.6, 0.5), rows[1]], None, keep=2)
    assert [choice.key[1] for choice in kept] == [1, 2]


def test_final_runs_are_of_each_method_each_combination_of_teachers_or_each_setting() -> None:
    rows = [row("none", 0, 0.5, 0.5), row("aft", 1, 0.6, 0.5), row("aft", 2, 0.7, 0.5), row("aft", 1, 0.9, 0.5, ("b",))]
    settings = {
        of: [choice.key[:3] for choice in best_of_each(of, rows, None)] for of in ("method", "teachers", "setting")
    }
    none, first, second, other = ("none", 0, ()), ("aft", 1, ("a",)), ("aft", 2, ("a",)), ("aft", 1, ("b",))
    assert settings == {
        "method": [none, other],
        "teachers": [none, second, other],
        "setting": [none, first, second, other],
    }


def wins(rows: list[TrialRow], **options: Any) -> str:
    return winner(best_settings(rows, None, **options)).method


@pytest.mark.parametrize(
    ("aft", "method"),
    [(0.9, "aft"), (0.825, "aft"), (0.82, "none"), (0.8 + 1 / 227, "none"), (0.7, "none")],
)
def test_standard_transfer_wins_where_nothing_is_better_by_more_than_its_standard_error(
    aft: float, method: str
) -> None:
    rows = [row("none", 0, 0.8, 0.5), row("aft", 1, aft, 0.1), row("kd", 1, 0.75, 0.1)]
    assert wins(rows, num_validation=278) == method  # sqrt(0.8 * 0.2 / 278) = 0.024


def test_without_standard_transfer_the_best_wins() -> None:
    assert wins([row("kd", 1, 0.8, 0.5), row("aft", 1, 0.8, 0.4)]) == "aft"
    assert wins([row("kd", 1, 0.81, 0.5), row("aft", 1, 0.8, 0.4)], num_validation=10) == "kd"


def test_of_a_regression_seeds_give_the_standard_error() -> None:
    standard = [row("none", 0, None, loss) for loss in (1.0, 1.2)]  # -1.1 with standard error 0.1
    assert wins([*standard, row("aft", 1, None, 1.05)], num_validation=50) == "none"
    assert wins([*standard, row("aft", 1, None, 0.9)], num_validation=50) == "aft"
    assert wins([standard[0], row("aft", 1, None, 0.99)], num_validation=50) == "aft"  # one seed knows none


def test_a_choice_knows_its_method() -> None:
    assert Choice(("kd", 1.0, ("a",), ()), 0.5, 0.5, 0.0).method == "kd"
