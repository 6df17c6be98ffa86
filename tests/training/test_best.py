from __future__ import annotations

import math
from typing import Any

import pytest

from aft_ray.training.best import ACCURACY, LOSS, best_line, best_score, measure_of, score


def line(step: int, accuracy: float | None, loss: float | None) -> dict[str, Any]:
    return {"step": step, "val_accuracy": accuracy, "val_loss": loss}


def test_evaluations_are_compared_by_accuracy_or_by_the_loss_of_a_regression() -> None:
    classes = [line(1, 0.5, 0.1), line(2, 0.7, 0.3), line(3, 0.7, 0.2)]
    assert best_line(classes)["step"] == 2 and best_score(classes) == 0.7
    assert best_line(classes, "val_loss")["step"] == 1 and best_score(classes, "val_loss") == -0.1
    numbers = [line(1, None, 3.0), line(2, None, 1.0), line(3, None, 2.0)]
    assert best_line(numbers)["step"] == 2 and best_score(numbers) == -1.0
    assert best_line([line(1, None, None), line(2, None, None)])["step"] == 2  # without a validation split
    assert best_score([]) is None


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    diverged = [line(1, None, math.nan), line(2, None, 4.0), line(3, None, math.nan)]
    assert best_line(diverged)["step"] == 2 and score(diverged[0]) == -math.inf


def test_a_task_has_one_measure() -> None:
    assert measure_of([line(1, None, 0.5), line(2, 0.5, 0.5)]) is ACCURACY
    assert measure_of([line(1, None, 0.5)]) is LOSS
    joined = line(3, None, None) | {"test_accuracy": 0.9, "test_loss": 0.3}  # trained on train and validation
    assert measure_of([joined]) is ACCURACY and measure_of([]) is ACCURACY
    assert measure_of([line(3, None, None) | {"test_accuracy": None, "test_loss": 0.3}]) is LOSS


@pytest.mark.parametrize(
    ("measure", "value", "number", "amount", "difference"),
    [(ACCURACY, 0.91234, "91.23", "91.2 %", "91.2 points"), (LOSS, 0.0123456, "0.01235", "0.01235", "0.01235")],
)
def test_values_are_shown_in_the_unit_of_their_measure(
    measure: Any, value: float, number: str, amount: str, difference: str
) -> None:
    assert (measure.number(value), measure.amount(value), measure.difference(value)) == (number, amount, difference)
    assert measure.number(math.nan) == "–"


def test_a_gain_is_what_is_better() -> None:
    assert ACCURACY.gain(0.9, 0.8) == pytest.approx(0.1) and LOSS.gain(0.8, 0.9) == pytest.approx(0.1)
    assert ACCURACY.error_of(0.9) == pytest.approx(0.1) and LOSS.error_of(0.9) == 0.9
