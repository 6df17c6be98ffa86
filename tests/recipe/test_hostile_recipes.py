"""Recipes and overrides that cannot be meant: exit status 2, a line for each fault, all at once, nothing started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aft_ray.cli import main
from aft_ray.recipe.config import load

MINIMAL = "workspace: w\ndataset: {source: csv, path: data, columns: {text: text}}\nstudent: {model: 'tiny:text'}\n"


def refused(path: Path | str, capsys: pytest.CaptureFixture[str], *overrides: str) -> list[str]:
    """The lines that the command line gives for a recipe."""
    assert main(["prepare", str(path), *overrides]) == 2
    found = capsys.readouterr()
    assert found.out == "" and "Traceback" not in found.err
    lines = found.err.splitlines()
    assert lines and all(line.startswith("aft-ray: ") for line in lines)
    return [line.removeprefix("aft-ray: ") for line in lines]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty."),
        (b"# nothing\n", "is empty."),
        (b"- a\n", "must be a mapping of keys, got list."),
        (b"a recipe", "must be a mapping of keys, got str."),
        (MINIMAL.encode() + "# café".encode("latin-1"), "is not UTF-8 text (byte 107). Save it as UTF-8."),
        (MINIMAL.encode("utf-16"), "is not UTF-8 text (byte 1). Save it as UTF-8."),
        (bytes(range(256)), "is not UTF-8 text (byte 129). Save it as UTF-8."),
        (b"\x89PNG\r\n\x1a\n", "is not UTF-8 text (byte 1). Save it as UTF-8."),
        (b"a\0b", "is not valid YAML: unacceptable character #x0000"),
        (b" " * (5 << 20), "is larger than 4 MiB"),
    ],
)
def test_a_file_that_is_no_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, fault: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    (line,) = refused(path, capsys)
    assert line.startswith(f"Recipe {path} ") and fault in line


def test_a_place_that_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "is a directory or a device" in refused(tmp_path, capsys)[0]
    assert "is a directory or a device" in refused(tmp_path / "pipe", capsys)[0]
    assert "does not exist" in refused(tmp_path / "loop", capsys)[0]
    assert "does not exist" in refused("a\0b", capsys)[0]
    assert "File name too long" in refused("a" * 5000, capsys)[0]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ("train: {steps: true}", "train.steps must be a number, got True."),
        ("train: {learning_rate: yes}", "train.learning_rate must be a number, got True."),
        ("search: {beta: [1, true]}", "search.beta must be a number, got {'all': [1, True]}."),
        ("train: {learning_rate: .inf}", "train.learning_rate must be a finite number, got inf."),
        ("train: {learning_rate: 1.0e+400}", "train.learning_rate must be a finite number, got inf."),
        ("train: {weight_decay: .nan}", "train.weight_decay must be a finite number, got nan."),
        ("regularizer: {beta: .inf}", "regularizer.beta must be a finite number, got inf."),
        ("regularizer: {temperature: .nan}", "regularizer: temperature must be a finite number, got nan."),
        (
            "search: {space: {train.learning_rate: {min: 0.1, max: .inf}}}",
            "search.space.train.learning_rate.max must be a finite",
        ),
        ("train: {steps: 0100}", "line 4: 0100 is ambiguous. Write a plain number, or put it in quotes."),
        ("run: 007", "line 4: 007 is ambiguous. Write a plain number, or put it in quotes."),
        ("run: 7", "run must be a text, got 7. Put it in quotes."),
        (
            "dataset: {source: csv, path: no, columns: {text: t}}",
            "dataset.path must be a text, got False. Put it in quotes.",
        ),
        ("train: {seed: -1}", "train.seed must be greater than or equal to 0, got -1."),
        (
            f"train: {{seed: {2**64}}}",
            "train.seed must be less than or equal to 4611686018427387904, got 18446744073709551616.",
        ),
        ("student: {model: 'tiny:cnn', image_size: 1000000}", "student.image_size must be less than or equal to 8192"),
        ("student: {model: 'tiny:text', max_length: 1000000000}", "student.max_length must be less than or equal to"),
        ("train: {num_workers: 1000000000}", "train.num_workers must be less than or equal to 10000"),
        (
            "teachers: [{model: 'timm:a', num_actors: 1000000000}]",
            "teachers.0.num_actors must be less than or equal to",
        ),
        (
            "teachers: [{model: 'timm:a', num_actors: {min: 3, max: 2}}]",
            "teachers.0.num_actors must have min <= max, got 3 and 2.",
        ),
        (
            "teachers: [{model: 'timm:a', num_actors: {min: 1, max: 10000}}]",
            "teachers.0.num_actors.max must be less than or equal to 1000, got 10000.",
        ),
        (
            "teachers: [{model: 'timm:a', num_actors: {min: 0, max: 2}}]",
            "teachers.0.num_actors.min must be greater than 0, got 0.",
        ),
        ("teachers: [{model: 'timm:a', num_actors: {min: 1}}]", "Missing key 'teachers.0.num_actors.max'."),
        (
            "teachers: [{model: 'timm:a', num_actors: many}]",
            "teachers.0.num_actors must be a whole number, got 'many'.",
        ),
        (
            "teachers: [{model: 'timm:a', num_actors: {min: 1, max: 2, mx: 3}}]",
            "Unknown key 'teachers.0.num_actors.mx'. Did you mean 'max'? Known: min, max.",
        ),
        (f"run: {'a' * 300}", "run: a name has at most 200 characters, got 300."),
        ("run: a/b", "run: a name has letters, digits, '.', '_' and '-' and starts with a letter or digit, got 'a/b'."),
        ('run: "a\\nb"', "run: a name has letters"),
        ("run: ..", "run: a name has letters"),
        ("run: ''", "run: a name has letters"),
        ("workspace: ''", "workspace must name a directory, or a bucket and a place in it, got ''."),
        ("workspace: '  '", "workspace must name a directory"),
        ("workspace: 's3://'", "workspace must name a directory, or a bucket and a place in it, got 's3://'."),
        ('workspace: "a\\0b"', "workspace must not have the characters NUL"),
        (
            'dataset: {source: csv, path: "\\ud800", columns: {text: t}}',
            "dataset.path must not have the characters NUL",
        ),
        ('student: {model: "tiny:text", weights: "a\\0b"}', "student.weights must not have the characters NUL"),
        ("2020-01-01: x", "Unknown key '2020-01-01'. Known: workspace, dataset,"),
        ("5: x", "Unknown key '5'. Known: workspace, dataset,"),
        ("train:", "train must be a section with keys of steps,"),
    ],
)
def test_a_value_that_cannot_be_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: str, fault: str
) -> None:
    path = tmp_path / "recipe.yaml"
    key = changed.partition(":")[0]
    kept = [line for line in MINIMAL.splitlines() if not line.startswith(f"{key}:")]
    path.write_text("\n".join([*kept, *[""] * (3 - len(kept)), changed]) + "\n")
    (line,) = refused(path, capsys)
    assert fault in line


def test_a_number_to_the_base_60_is_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(MINIMAL + "train: {steps: 1:30}\n")
    ambiguous, of_key = refused(tmp_path / "recipe.yaml", capsys)
    assert "line 4: 1:30 is ambiguous." in ambiguous and of_key.startswith("train.steps must be a whole number")


def test_faults_of_the_file_and_of_its_values_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base.yaml").write_text("train: {steps: 1, steps: 2}\nresources: {wait_s: -1}\n")
    path = tmp_path / "recipe.yaml"
    path.write_text("base: base.yaml\n" + MINIMAL + "train: {seed: true}\ntrain: {learning_rate: .inf}\nrunn: a\n")
    lines = refused(path, capsys, "train.warmup_steps=[", "train.clip_norm=010")
    starts = [
        f"Base of {path}: {tmp_path}/base.yaml: line 1: key 'steps' is given 2 times.",
        f"Recipe {path}: lines 5 and 6: key 'train' is given 2 times.",
        "Override train.warmup_steps=[ is not valid YAML: line 1, column 2:",
        "Override train.clip_norm=010: line 1: 010 is ambiguous.",
        "train.learning_rate must be a finite number",
        "resources.wait_s must be greater than or equal to 0",
        "Unknown key 'runn'. Did you mean 'run'?",
    ]
    assert [next((start for start in starts if line.startswith(start)), line) for line in lines] == starts


def test_each_contradiction_of_a_section_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL + "search: {searcher: random, subsets_as: bits}\n")
    assert refused(path, capsys) == [
        "search: searcher 'random' needs num_samples, the settings to try per method.",
        "search: subsets_as 'bits' is for searcher 'optuna'.",
    ]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("dataset.path=[raw] data", "[raw] data"),
        ("dataset.path=/a/b #c", "/a/b #c"),
        ("dataset.path=/a/b: c", "/a/b: c"),
        ("dataset.path=/a/b=c", "/a/b=c"),
        ("dataset.path=2024", "2024"),
        ("dataset.path=010", "010"),
        ("dataset.path=no", "no"),
        ("dataset.path={", "{"),
        ("dataset.path='quoted'", "quoted"),
        ('dataset.path="a\\tb"', "a\tb"),
        ("dataset.columns.label=no", "no"),
        ("dataset.columns.label=[a, no text", "[a, no text"),
        ("dataset.columns.label=[a, b]", ("a", "b")),
        ("dataset.columns.id=null", None),
        ("run=1e3", "1e3"),
        ("run=2024-01-01", "2024-01-01"),
        ("train.clip_norm=null", None),
        ("train.steps=1_000", 1000),
        ("train.optimizer=sgd", "sgd"),
        ("regularizer.learn_gates=no", False),
    ],
)
def test_an_override_of_a_text_is_taken_as_it_was_typed(tmp_path: Path, override: str, value: object) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        MINIMAL.replace("text: text", "text: text, id: i").replace("path: data", "path: data, task: multilabel")
    )
    found: Any = load(path, [override])
    for part in override.partition("=")[0].split("."):
        found = found.options[part] if part == "learn_gates" else getattr(found, part)
    assert found == value
