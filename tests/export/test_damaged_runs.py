"""A run whose files are damaged, swapped or missing is refused in a line a fault by every verb that reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aft_ray.cli import main
from aft_ray.export.student import load_student
from aft_ray.recipe.config import dump
from tests.export.test_predict import finished

Change = Callable[[Path], Any]


def facts(**changes: Any) -> Change:
    """Changes keys of student.json; None removes a key."""

    def change(run: Path) -> None:
        path = run / "student" / "student.json"
        found = json.loads(path.read_text()) | changes | {"digest": None}
        path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))

    return change


def cut(name: str, size: int) -> Change:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:size])


def text(name: str, content: str) -> Change:
    return lambda run: (run / name).write_text(content)


def tensors(change: Callable[[dict[str, torch.Tensor]], Any], *, checksum: bool = False) -> Change:
    """Changes the weights; without their checksum in student.json, as runs of before have none."""

    def changed(run: Path) -> None:
        path = run / "student" / "student.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)
        if not checksum:
            facts(sha256=None)(run)

    return changed


def swap(found: dict[str, torch.Tensor]) -> None:
    """Two tensors of one shape change places."""
    names = list(found)
    first, second = next((a, b) for a in names for b in names if a < b and found[a].shape == found[b].shape)
    found[first], found[second] = found[second], found[first].clone()


def a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("x")


FACTS, WEIGHTS = "student/student.json", "student/student.safetensors"
DAMAGES: dict[str, tuple[Change, str]] = {
    "no run": (lambda run: shutil.rmtree(run), "holds no trained student. Run 'aft-ray train' first"),
    "a file for a run": (a_file, "holds no trained student"),
    "facts cut": (cut(FACTS, 100), "student.json is damaged: Invalid JSON: "),
    "facts empty": (cut(FACTS, 0), "student.json is damaged: Invalid JSON: "),
    "facts of another kind": (text(FACTS, "[1, 2]"), "student.json is damaged: Input should be"),
    "facts too deep": (text(FACTS, "[" * 100_000), "student.json is damaged: Invalid JSON: "),
    "facts no text": (
        lambda run: (run / FACTS).write_bytes(b"\xff\xfe{"),
        "student.json is damaged: Invalid JSON",
    ),
    "no classes": (facts(classes=None), "student.json is damaged: classes: Field required"),
    "classes of another type": (
        facts(classes="cat"),
        "student.json is damaged: classes: Input should be a valid array",
    ),
    "a class that is a number": (facts(classes=["cat", 3, "fish"]), "classes.1: Input should be a valid string"),
    "a task that is none": (
        facts(task="clustering"),
        "student.json is damaged: task: Input should be 'classification'",
    ),
    "no student": (
        facts(student={"model": 3}),
        "student.json is damaged: student.model: Input should be a valid string",
    ),
    "teachers of another type": (
        facts(teachers={"a": 1}),
        "student.json is damaged: teachers: Input should be a valid array",
    ),
    "fewer classes": (facts(classes=["cat", "dog"]), "student.safetensors is damaged: it is of another student"),
    "another student": (
        facts(student={"model": "tiny:text"}),
        "student.safetensors is damaged: it is of another student",
    ),
    "weights missing": (lambda run: (run / WEIGHTS).unlink(), "student.safetensors is damaged: it is missing."),
    "weights empty": (cut(WEIGHTS, 0), "student.safetensors is damaged: its checksum is not the one in student.json"),
    "weights cut": (cut(WEIGHTS, 500), "student.safetensors is damaged: its checksum is not the one in student.json"),
    "tensors swapped": (tensors(swap, checksum=True), "its checksum is not the one in student.json"),
    "of before, weights cut": (
        lambda run: [change(run) for change in (cut(WEIGHTS, 500), facts(sha256=None))],
        "student.safetensors is damaged:",
    ),
    "of before, a tensor less": (tensors(lambda found: found.pop("head.bias")), "head.bias is missing, not (3,)"),
    "of before, a tensor more": (tensors(lambda found: found.update(x=torch.zeros(2))), "x is (2,), not there"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_student_is_refused_by_every_verb_that_reads_it(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, _ = finished("tiny:cnn", tmp_path)
    monkeypatch.setattr("aft_ray.commands.predict.ray_cluster", lambda *given: pytest.fail("a cluster was started"))
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    change, fault = DAMAGES[damage]
    change(tmp_path / "work" / "runs" / "main")
    for verb in (["export"], ["evaluate"], ["predict", str(tmp_path)]):
        assert main([verb[0], str(tmp_path / "recipe.yaml"), *verb[1:]]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert fault in lines[0] and len(lines) <= 3, lines
        assert all(line.startswith("aft-ray: ") and "run=NAME" in line or "name another run" in line for line in lines)
    assert not (tmp_path / "work" / "runs" / "main" / "export").exists()


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("inputs.json", "{", "inputs.json is damaged: Invalid JSON"),
        ("inputs.json", '{"recipe": []}', "inputs.json is damaged: recipe: "),
        (
            "inputs.json",
            '{"recipe": {"student": {"model": "tiny:cnn"}, "teachers": [], "train": {"steps": "many"}}, "samples": null,'
            ' "teachers": {}}',
            "inputs.json is damaged: recipe.train.steps: ",
        ),
        ("inputs.json", '{"samples": 3}', "inputs.json is damaged: samples: "),
        ("evaluation-test.json", "", "Delete it and run 'aft-ray evaluate' again."),
        (
            "evaluation-test.json",
            '{"accuracy": "high"}',
            "must be numbers. Delete it and run 'aft-ray evaluate' again.",
        ),
    ],
)
def test_an_export_reads_no_damaged_file_into_the_card(
    name: str, content: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, _ = finished("tiny:cnn", tmp_path)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    run = tmp_path / "work" / "runs" / "main"
    (run / name).write_text(content)
    assert main(["export", str(tmp_path / "recipe.yaml")]) == 2
    said = capsys.readouterr().err
    assert fault in said and "Traceback" not in said
    assert [path.name for path in run.iterdir() if "export" in path.name] == []


def test_weights_of_before_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    recipe, student = finished("tiny:cnn", tmp_path)
    facts(sha256=None)(tmp_path / "work" / "runs" / "main")
    again = load_student(tmp_path / "work" / "runs" / "main")
    assert all(
        torch.equal(a, b) for a, b in zip(student.state_dict().values(), again.state_dict().values(), strict=True)
    )
