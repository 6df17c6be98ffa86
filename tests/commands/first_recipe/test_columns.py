"""Which column is which: from names and first rows."""

from __future__ import annotations

from typing import Any

import pytest

from aft_ray.commands.first_recipe.columns import guess
from aft_ray.recipe.errors import InputError


def rows(**columns: list[Any]) -> tuple[list[str], list[dict[str, Any]]]:
    return list(columns), [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


TEXTS = [f"sentence number {number} about something" for number in range(12)]
NAMES = [f"img/{number}.png" for number in range(12)]
KINDS = ["cat", "dog", "owl"] * 4


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"text": TEXTS, "label": KINDS}, {"label": "label", "text": "text"}),
        ({"definition": TEXTS, "kind": KINDS}, {"label": "kind", "text": "definition"}),
        ({"picture": NAMES, "name": TEXTS, "group": KINDS}, {"label": "group", "image": "picture", "text": "name"}),
        ({"file_name": NAMES, "species": KINDS}, {"label": "species", "image": "file_name"}),
        ({"review": TEXTS, "stars": [1, 2, 3, 4] * 3}, {"label": "stars", "text": "review"}),
        ({"id": list(range(12)), "text": TEXTS, "y": KINDS}, {"label": "y", "text": "text", "id": "id"}),
        (
            {"text": TEXTS, "label": KINDS, "split": ["train", "test", "val"] * 4},
            {"label": "label", "text": "text", "split": "split"},
        ),
        (
            {"premise": TEXTS, "hypothesis": TEXTS, "label": [0, 1] * 6},
            {"label": "label", "text": ["premise", "hypothesis"]},
        ),
        (
            {"title": ["1984 and more", *TEXTS[1:-1], 1984], "by": KINDS, "note": ["", *KINDS[:-1]]},
            {"label": "by", "text": "title"},
        ),
        ({"author": KINDS, "sentiment": ["+", "-"] * 6, "body": TEXTS}, {"label": "sentiment", "text": "body"}),
    ],
)
def test_columns_are_found(columns: dict[str, list[Any]], found: dict[str, Any]) -> None:
    assert guess(*rows(**columns), {}) == {"columns": found}


def test_amounts_and_names_of_few_rows_are_no_label_where_another_column_is_one() -> None:
    kinds = ["small ones", "large ones"] * 30
    amounts, codes = ["0"] * 59 + ["7"], [str(number // 2) for number in range(60)]
    texts = [f"sentence number {number}" for number in range(60)]
    assert guess(*rows(text=texts, cost=amounts, code=codes, size=kinds), {})["columns"]["label"] == "size"


def test_beside_a_picture_only_a_caption_is_its_text() -> None:
    facts = {
        "width": [str(number) for number in range(12)],
        "taken": ["2020-01-01"] * 12,
        "good": ["yes", "no", "no"] * 4,
    }
    place = ["New York", "Rio de Janeiro"] * 6
    table = {"file": NAMES, **facts, "place": place, "label": KINDS}
    assert guess(*rows(**table), {})["columns"] == {"label": "label", "image": "file"}
    assert guess(*rows(**table, says=TEXTS), {})["columns"]["text"] == "says"
    with pytest.raises(InputError, match="No column holds texts or pictures"):
        guess(*rows(width=facts["width"], taken=facts["taken"], label=KINDS), {})


def test_an_id_that_later_rows_repeat_is_none() -> None:
    table = rows(id=list(range(12)), text=TEXTS, label=KINDS)
    assert "id" not in guess(*table, {}, lambda name: name != "id")["columns"]
    assert guess(*table, {"id": "id"}, lambda name: False)["columns"]["id"] == "id"


def test_the_label_s_values_tell_the_task() -> None:
    assert guess(*rows(text=TEXTS, label=[["a"], ["a", "b"]] * 6), {})["task"] == "multilabel"
    assert guess(*rows(text=TEXTS, label=[0.5, 1.25, 3.0] * 4), {})["task"] == "regression"
    assert guess(*rows(text=TEXTS, label=["0,5", "1,25", "3,0"] * 4), {})["task"] == "regression"
    assert guess(*rows(text=TEXTS, label=[True, None, False] * 4), {})["label_names"] == ["False", "True"]
    assert "label_names" not in guess(*rows(text=TEXTS, label=["True", "False", "1"] * 4), {})


def test_the_user_s_word_goes_first() -> None:
    found = guess(*rows(a=TEXTS, b=TEXTS, c=KINDS, d=KINDS), {"text": "a", "label": "d"})
    assert found == {"columns": {"label": "d", "text": "a"}}


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        (
            {"a": TEXTS, "b": TEXTS},
            {},
            "No column looks like a label: none repeats its values. Name it with --label: a, b.",
        ),
        ({"label": KINDS, "n": list(range(12))}, {}, "No column holds texts or pictures."),
        ({"text": TEXTS, "label": KINDS}, {"label": "lable"}, "There is no column 'lable'. Columns: text, label."),
    ],
)
def test_what_cannot_be_found_is_wrong_input(
    columns: dict[str, list[Any]], given: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        guess(*rows(**columns), given)
    assert caught.value.faults[0].startswith(message)
