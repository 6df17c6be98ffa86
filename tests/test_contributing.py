"""CONTRIBUTING's examples do what they say: each is written to a file and used, as a contributor would."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aft_ray import cli, commands
from aft_ray.commands.check import check, open_setup
from aft_ray.datasets.prepare import prepare
from aft_ray.export import load_student
from aft_ray.models import students, teachers
from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.own_class import import_class
from aft_ray.recipe.sections import StudentConfig, TeacherConfig
from aft_ray.regularizers import build_regularizer
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import load_data
from tests.helpers import ROOT
from tests.helpers.training import DATA, made_workspace, recipe

EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL))


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, code in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in EXAMPLES:
        sys.modules.pop(name, None)
        for folder in ("commands", "models.students", "models.teachers"):
            sys.modules.pop(f"aft_ray.{folder}.{name}", None)


def test_every_example_has_at_most_thirty_lines() -> None:
    assert len(EXAMPLES) >= 5 and all(len(code.splitlines()) <= 30 for code in EXAMPLES.values())


def test_the_teacher() -> None:
    config = TeacherConfig(name="histogram", model="histogram:Histogram", options={"bins": 8})
    assert describe_teacher(config).modality == "image"
    features = build_teacher(config, torch.device("cpu"))(np.full((2, 32, 32, 3), 40, np.uint8))
    assert features.shape == (2, 8) and features[0].argmax() == 1


def test_a_class_in_its_folder_of_the_package_needs_no_entry_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in (teachers, students):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    student = StudentConfig(model="aft_ray.models.students.strips:Strips", options={"width": 2})
    assert students.build_student(student, 3).feature_dim == 8
    teacher = TeacherConfig(name="histogram", model="aft_ray.models.teachers.histogram:Histogram")
    assert describe_teacher(teacher).modality == "image"


def test_the_lists_of_names_point_to_files_that_exist() -> None:
    told = [summary for *_, summary in teachers.FORMS] + [students.OWN.summary]
    paths = [path for text in told for path in re.findall(r"[\w/]+\.py", text)]
    assert len(paths) == 2 and all((ROOT / path).is_file() for path in paths)


def test_the_student(tmp_path: Path) -> None:
    changes = {
        "student": {"model": "strips:Strips", "options": {"width": 2}},
        "train.steps": 4,
        "train.evaluate_every": 2,
    }
    given = made_workspace(tmp_path / "work", changes)
    data = load_data(given, open_setup(given, "train").stores)
    fit(given, data, directory=Workspace.at(tmp_path / "run"), report=lambda metrics, state: None)
    student = load_student(tmp_path / "run")
    assert student(torch.zeros(3, 32, 32, 3, dtype=torch.uint8)).shape == (3, len(student.classes))


def test_the_regularizer(tmp_path: Path) -> None:
    cosine = build_regularizer("cosine:Cosine", student_dim=4, teacher_dims=[3, 2])
    assert 0 <= cosine(torch.randn(6, 4), torch.randn(6, 5)) <= 2
    given = override(recipe(), {"regularizer.name": "cosine:Cosine", "train.steps": 4, "train.evaluate_every": 2})
    history = fit(given, DATA, directory=Workspace.at(tmp_path / "run"), report=lambda metrics, state: None)
    assert history[-1]["regularization"] > 0


def test_the_source(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(12):
        name = "cell" if number % 2 else "void"
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(scans / f"{name}-{number}.png")
    dataset = {"source": "slides:Slides", "path": str(scans)}
    given = Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    )
    assert prepare(given)["train"]["classes"] == ["cell", "void"]


def test_the_scheduler() -> None:
    given = override(recipe(), {"search.scheduler": "floor:Floor", "train.steps": 30})
    floor = import_class("floor:Floor", "search.scheduler", ("on_trial_result",))(given)
    decisions = [
        floor.on_trial_result(None, None, {"step": step, "score": score})
        for step, score in ((9, 0.1), (10, 0.1), (10, 0.6))
    ]
    assert decisions == [floor.CONTINUE, floor.STOP, floor.CONTINUE]
    check(override(given, {"regularizer.name": "none"}), "train")


def test_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    path = tmp_path / "recipe.yaml"
    path.write_text("workspace: work\ndataset: {name: mnist5k}\nstudent: {model: 'tiny:cnn'}\n")
    assert "where" in commands.recipe_verbs()
    assert cli.main(["where", str(path)]) == 0
    assert "features" in capsys.readouterr().out
