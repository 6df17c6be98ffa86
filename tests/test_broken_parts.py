"""A mistake in a class of the user's own is a line that names the user's file and line, whoever runs the class."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aft_ray.cli import main
from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.features import embed
from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.own_class import own_faults
from aft_ray.recipe.sections import TeacherConfig
from tests.helpers import ROOT
from tests.helpers.training import made_workspace

OWN = "tests.helpers.broken_parts"
PLACE = r"\(\S*/broken_parts.py, line \d+\)"
INPUTS = np.zeros((3, 8, 8, 3), np.uint8)


def teacher(name: str, **options: Any) -> TeacherConfig:
    return TeacherConfig(name="mine", model=f"{OWN}:{name}", options=options)


def test_a_teacher_s_exception_is_named_with_its_line() -> None:
    with pytest.raises(InputError, match=f"Teacher 'mine': {OWN}:RaisesInDescribe raised KeyError {PLACE}: 'missing'"):
        describe_teacher(teacher("RaisesInDescribe"))
    with pytest.raises(InputError, match=f"Teacher 'mine': {OWN}:RaisesInInit raised RuntimeError {PLACE}: no licence"):
        build_teacher(teacher("RaisesInInit"), torch.device("cpu"))
    with pytest.raises(InputError, match=f"Teacher 'mine': {OWN}:Raises raised KeyError {PLACE}: 'layer'") as raised:
        with own_faults(f"{OWN}:Raises", "Teacher 'mine'"):
            embed(build_teacher(teacher("Raises"), torch.device("cpu")), INPUTS, 2)
    line = int(re.findall(r"line (\d+)", str(raised.value))[0])
    assert (
        "the line that is named" in (ROOT / "tests" / "helpers" / "broken_parts.py").read_text().splitlines()[line - 1]
    )


def test_a_teacher_without_a_width_or_a_plain_fingerprint_is_refused() -> None:
    with pytest.raises(InputError, match="NoWidth must set feature_dim, the number of its features, in __init__"):
        build_teacher(teacher("NoWidth"), torch.device("cpu"))
    with pytest.raises(InputError, match="Unserialisable.describe: the fingerprint must hold plain JSON values"):
        describe_teacher(teacher("Unserialisable"))


@pytest.mark.parametrize(
    ("gives", "got"),
    [
        ("narrow", "(2, 3) torch.float32"),
        ("short", "(1, 192) torch.float32"),
        ("flat", "(384,) torch.float32"),
        ("whole numbers", "(2, 192) torch.int64"),
        ("none", "NoneType"),
        ("pair", "tuple"),
    ],
)
def test_features_of_another_shape_are_refused(gives: str, got: str) -> None:
    built = build_teacher(teacher("Gives", gives=gives), torch.device("cpu"))
    line = f"Class {OWN}:Gives must give floats of shape (inputs, feature_dim) = (2, 192), got {got}."
    with pytest.raises(InputError, match=re.escape(line)):
        embed(built, INPUTS, 2)


def test_features_may_be_an_array() -> None:
    features, _ = embed(build_teacher(teacher("Gives", gives="numpy"), torch.device("cpu")), INPUTS, 2)
    assert features.shape == (3, 192) and (features == 1).all()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"student.model": f"{OWN}:RaisingStudent"},
            f"student.model: {OWN}:RaisingStudent raised AttributeError {PLACE}: ",
        ),
        (
            {"student.model": f"{OWN}:LateStudent"},
            f"student.model: {OWN}:LateStudent raised KeyError {PLACE}: 'schedule'",
        ),
        (
            {"student.model": f"{OWN}:LogitsAlone"},
            f"student.model: {OWN}:LogitsAlone.run must return logits and features, got Tensor",
        ),
        (
            {"student.model": "tiny:cnn", "regularizer.name": f"{OWN}:RaisingRegularizer"},
            f"regularizer.name: {OWN}:RaisingRegularizer raised RuntimeError {PLACE}: ",
        ),
    ],
)
def test_a_student_s_and_a_regularizer_s_exception_ends_the_training_with_a_line(
    changes: dict[str, Any], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = override(made_workspace(tmp_path / "work", {"train.steps": 4}), changes)
    (tmp_path / "recipe.yaml").write_text(dump(given))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 2
    said = capsys.readouterr().err
    assert re.search(f"^aft-ray: {fault}", said, re.MULTILINE), said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("RaisingSource", f"dataset.source: {OWN}:RaisingSource raised KeyError {PLACE}: 'table'"),
        ("Nothing", f"{OWN}:Nothing.list_samples must return a Listing, got list"),
        ("RaisingReader", f"dataset.source: {OWN}:RaisingReader raised AttributeError {PLACE}: "),
    ],
)
def test_a_source_s_exception_is_a_line(source: str, fault: str, tmp_path: Path) -> None:
    dataset = {"source": f"{OWN}:{source}", "path": str(tmp_path)}
    given = Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    )
    with pytest.raises(InputError, match=fault):
        prepare(given)


def test_an_exception_of_other_code_passes() -> None:
    with pytest.raises(ZeroDivisionError), own_faults(f"{OWN}:Raises", "Teacher 'mine'"):
        1 / 0  # noqa: B018
