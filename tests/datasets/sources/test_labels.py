"""Labels of every type: one class however it is spelled, never two classes in one, never a class by accident."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Sequence
from typing import Any

import pytest

from aft_ray.datasets.sources.labels import Labels
from aft_ray.recipe.errors import InputError


def labels(values: Sequence[Any], task: Any = "classification", names: tuple[str, ...] = (), **more: Any) -> Any:
    found = Labels(task, ("label",), names, **more)
    for number, value in enumerate(values, 1):
        found.add([value], lambda number=number: f"row {number}")  # type: ignore[misc]
    classes, coded = found.finish()
    return classes, [coded.values[code] for code in coded.codes]


def test_a_text_and_a_typed_column_may_have_the_same_numbers() -> None:
    assert labels(["0", 1, 1.0, "0.0", decimal.Decimal("1.00"), True, None, " ", float("nan")]) == (
        ("0", "1"),
        [0, 1, 1, 0, 1, 1, -1, -1, -1],
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), [0, 1, -1]),
        (("False", "True"), [0, 1, -1]),
        (("True", "False"), [1, 0, -1]),
        (("true", "false"), [1, 0, -1]),
        (("maybe", "FALSE", "TRUE"), [1, 2, -1]),
        (("1", "0"), [1, 0, -1]),
        (("neg", "pos"), [0, 1, -1]),
    ],
)
def test_a_boolean_is_the_class_of_its_name_else_a_number(names: tuple[str, ...], expected: list[int]) -> None:
    assert labels([False, True, None], names=names) == (names or ("0", "1"), expected)
    assert labels([False, True, 1, 0])[1] == [0, 1, 1, 0]


def test_a_text_that_is_a_boolean_may_have_other_capitals_than_its_class() -> None:
    assert labels(["false", "true"])[0] == ("false", "true")
    assert labels(["TRUE", "false"], names=("False", "True"))[1] == [1, 0]
    assert labels(["true", "True"], names=("True", "true"))[1] == [1, 0]


@pytest.mark.parametrize(("first", "names"), [(True, ("True", "maybe")), ("dog", ("dog", "cat"))])
def test_a_boolean_without_a_class_is_refused_with_its_row(first: object, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"row 2: label False is none of the classes: {', '.join(names)}"):
        labels([first, False], names=names)


def test_booleans_among_names_are_refused_with_their_row() -> None:
    with pytest.raises(InputError, match="Some labels are numbers, others names: True in row 1, 'maybe' in row 2"):
        labels([True, "maybe"])


def test_two_forms_of_one_accent_are_not_two_classes() -> None:
    with pytest.raises(InputError, match="'caf\N{LATIN SMALL LETTER E WITH ACUTE}' in row 1 .* are the same text"):
        labels(["caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"])


def test_a_label_that_is_no_unicode_is_named_with_its_row() -> None:
    with pytest.raises(InputError, match=r"row 2: label '\\udcff' is not Unicode"):
        labels(["a", "\udcff"])


@pytest.mark.parametrize("value", [float("inf"), 0.5, decimal.Decimal("0.5"), b"a", datetime.date(2020, 1, 1), {}])
def test_what_is_no_class_is_named_with_its_row(value: object) -> None:
    with pytest.raises(InputError, match="row 1: label .* is of type"):
        labels([value, 1])


def test_numbers_of_a_column_of_classes_are_places_even_if_the_classes_are_called_by_numbers() -> None:
    assert labels([0, 1, 4, 2], names=("1", "2", "3", "4", "5"), numbered=True)[1] == [0, 1, 4, 2]
    assert labels([1, 2], names=("1", "2", "3"), numbered=True)[1] == [1, 2]


def test_all_labels_go_by_name_or_all_by_number() -> None:
    names = ("1", "2", "3")
    assert labels(["1", "3.0"], names=names)[1] == [0, 2]
    assert labels([0, 1, 2], names=names)[1] == [0, 1, 2]
    assert labels(["0", "1", "-1"], names=names)[1] == [0, 1, -1]
    with pytest.raises(InputError, match="row 1: label 0 is none of the 3 classes, 0 to 2|row 4: label 3 is none"):
        labels([0, 1, 2, 3], names=names)
    with pytest.raises(InputError, match="row 2: label '1' is none of the classes: neg, pos"):
        labels(["neg", "1"], names=("neg", "pos"))


@pytest.mark.parametrize(
    ("values", "told"), [([0, 0], "All labels"), (["", None], "No sample has a label"), (["-1", 1], "All")]
)
def test_a_single_class_or_none_is_refused_unless_the_recipe_names_them(values: list[Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        labels(values)
    labels(values, names=("a", "b"))


def test_lists_of_classes_may_be_json_and_nothing_in_them_is_a_traceback() -> None:
    assert labels(['["a", "b"]', "b; c", "[]", None], "multilabel")[1] == [(1, 1, 0), (0, 1, 1), (0, 0, 0), None]
    assert labels(['["0", 1]', "1.0"], "multilabel") == (("0", "1"), [(1, 1), (0, 1)])
    for value, told in (
        ("[" * 100_000, "nested too deeply"),
        ("[1", "delimiter"),
        ("[[1]]", "of type list"),
        (5, "int"),
    ):
        with pytest.raises(InputError, match=f"row 1: .*{told}"):
            labels([value], "multilabel")


@pytest.mark.parametrize("value", ["1_000", "1,5", "big", "1e999", "9" * 400, 10**400, 1e39, "-1e39", [], ["x"]])
def test_a_number_to_predict_is_one(value: object) -> None:
    with pytest.raises(InputError):
        labels([value, value], "regression")


def test_a_zero_has_no_sign() -> None:
    """Equal labels are kept once: the sign would be the first row's, which another order of the rows changes."""
    assert str(labels([-0.0, "0", "-0.0", [-0.0]], "regression")[1]) == str([(0.0,)] * 4)


HUGE = 10**4000


@pytest.mark.parametrize("rows", [["0", "1", HUGE, HUGE + 1], [HUGE, HUGE + 1, "a"], [str(HUGE), "b", [1]]])
def test_labels_of_thousands_of_digits_are_cut_in_messages(rows: list[object]) -> None:
    labels = Labels("classification", ("label",), ("x", "y", str(HUGE)) if rows[0] == "0" else ())
    for number, value in enumerate(rows):
        labels.add([value], lambda number=number: f"row {number}")  # type: ignore[misc]
    with pytest.raises(InputError) as refused:
        labels.finish()
    assert all(len(fault) < 400 for fault in refused.value.faults)
