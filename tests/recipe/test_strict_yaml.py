"""What a YAML document means, whoever reads it, and what is refused in one."""

from __future__ import annotations

import time
from typing import Any

import pytest

from aft_ray.recipe import strict_yaml
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.strict_yaml import parse
from tests.helpers import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [0.5, 1.5e-3, 0x10, 1_000, -3]", {"a": 1, "b": [0.5, 0.0015, 16, 1000, -3]}),
        ("a: yes\nb: null\nc: ~", {"a": True, "b": None, "c": None}),
        ("a: 2024-01-01\nb: '010'\nc: \"1:30\"", {"a": "2024-01-01", "b": "010", "c": "1:30"}),
        ("2024-01-01: a\n1: b\nno: c\nnull: d", {"2024-01-01": "a", "1": "b", "no": "c", "null": "d"}),
        (
            "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: *x",
            {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": {"b": 1, "c": 2}},
        ),
        ("", None),
        ("# nothing", None),
    ],
)
def test_values_are_plain(text: str, value: Any) -> None:
    assert parse(text, "File") == (value, [])


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3", ["File: lines 1 and 3: key 'a' is given 2 times. Keep one."]),
        ("a: {b: 1, b: 2, b: 3}", ["File: line 1: key 'b' is given 3 times. Keep one."]),
        ("a: [{b: 1,\n b: 2}]", ["File: lines 1 and 2: key 'b' is given 2 times. Keep one."]),
        ("a: 010", ["File: line 1: 010 is ambiguous. Write a plain number, or put it in quotes."]),
        (
            "a: 1:30\nb: [-0012]\na: 2",
            [
                "File: lines 1 and 3: key 'a' is given 2 times. Keep one.",
                "File: line 1: 1:30 is ambiguous. Write a plain number, or put it in quotes.",
                "File: line 2: -0012 is ambiguous. Write a plain number, or put it in quotes.",
            ],
        ),
    ],
)
def test_readable_faults_are_told_beside_others(text: str, lines: list[str]) -> None:
    assert parse(text, "File")[1] == lines


BOMB = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}' if level else 'x'] * 10)}]\n" for level in range(9))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "line 1, column 5: expected the node content"),
        ("a:\n\tb: 1", "line 2, column 1: found character '\\t'"),
        ("a: &a [*a]", "line 1, column 4: an anchor refers to itself"),
        ("a: &a {b: {c: *a}}", "line 1, column 4: an anchor refers to itself"),
        (BOMB, "its aliases make more than 1,000,000 values"),
        (BOMB.replace("[", "{x: ").replace("]", "}").replace(", ", ", y: ", 1), "is not valid YAML"),
        ("a: *b", "found undefined alias 'b'"),
        ("a: " + "[" * 5000, "is nested too deeply"),
        ("a: " + "1" * 5000, "has a value that cannot be read"),
        ('a: !!int ""', "has a value that cannot be read"),
        ("a: !!bool maybe", "has a value that cannot be read"),
        ("? [a]\n: b", "a key must be a text"),
        ("--- a\n--- b", "expected a single document"),
        ("a: !!binary aGVsbG8=", "could not determine a constructor for the tag"),
        ("a: !!set {b}", "could not determine a constructor for the tag"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor for the tag"),
        ("a: \0", "unacceptable character #x0000"),
    ],
)
def test_what_has_no_value_is_refused_in_one_line_and_at_once(text: str, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        parse(text, "File")
    (line,) = caught.value.faults
    assert line.startswith("File ") and reason in line and "\n" not in line
    assert time.process_time() - started < 5


def outcome(text: str) -> tuple[Any, list[str]]:
    try:
        return parse(text, "File")
    except InputError as error:
        return None, error.faults


def test_the_quick_parser_reads_every_recipe_whole_and_cut_as_the_slow_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [path.read_text() for path in sorted((ROOT / "jobs" / "recipes").rglob("*.yaml"))]
    texts += [text[: len(text) * part // 7] for text in texts[::3] for part in range(1, 7)]
    monkeypatch.setattr(strict_yaml, "LOADER", None)
    assert parse("a: [1, {b: 010}]", "File")[0] == {"a": [1, {"b": "010"}]}, "the quick one is not used"
    monkeypatch.undo()
    quick = [outcome(text) for text in texts]
    monkeypatch.setattr(strict_yaml, "QUICK_LOADER", strict_yaml.LOADER)
    assert quick == [outcome(text) for text in texts] and len(texts) > 20


@pytest.mark.parametrize("text", ["a: !", "a: |#b", "a: [b ?\n ?]", "a:\n\t- b", "a: [b\tc]"])
def test_a_text_that_the_two_parsers_may_take_differently_means_what_the_slow_one_says(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = outcome(text)
    monkeypatch.setattr(strict_yaml, "QUICK_LOADER", strict_yaml.LOADER)
    assert told == outcome(text)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_does_not_end_the_process(opening: str) -> None:
    assert outcome(opening * 100_000)[1]
