"""Students of the user's own, named `module:Class`: built, trained, loaded, evaluated, exported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from aft_ray.commands.check import check, open_setup
from aft_ray.export import load_student
from aft_ray.models import students
from aft_ray.models.students import build_student, modality, student_transforms
from aft_ray.recipe.config import override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig
from aft_ray.training.inputs.data import load_data
from tests.helpers import ROOT
from tests.helpers.own_students import IMAGE, WORDS
from tests.helpers.training import made_workspace, recipe, run

OWN = "tests.helpers.own_students"


def config(name: str, **options: Any) -> StudentConfig:
    return StudentConfig(model=f"{OWN}:{name}", options=options)


def test_a_class_of_one_s_own_is_a_student_with_its_options() -> None:
    student = build_student(config("Patches", width=3), 5)
    assert student.feature_dim == 12 and student.num_outputs == 5 and student.training
    assert student.transforms == student_transforms(config("Patches")) == (IMAGE,)
    logits, features = student(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    assert logits.shape == (2, 5) and features.shape == (2, 12)
    assert modality(config("Patches")) == "image" and students.faults(config("Patches")) == []


def test_a_class_of_one_s_own_may_read_two_modalities() -> None:
    student = build_student(config("Pair"), 4)
    assert student.feature_dim == (3, 5) and student.transforms == (IMAGE, WORDS)
    assert modality(config("Pair")) == "image+text"


def test_own_weights_are_left_to_the_class_and_not_read_for_inference(tmp_path: Path) -> None:
    backbone = build_student(config("Patches"), 5).get_submodule("backbone").state_dict()
    save_file({name: tensor + 1 for name, tensor in backbone.items()}, tmp_path / "w.safetensors")
    given = config("Patches").model_copy(update={"weights": str(tmp_path / "w.safetensors")})
    assert torch.equal(build_student(given, 5).state_dict()["backbone.0.bias"], backbone["0.bias"] + 1)
    (tmp_path / "w.safetensors").unlink()
    build_student(given, 5, for_inference=True)
    assert "does not exist" in students.faults(given)[0]


@pytest.mark.parametrize(
    ("student", "line"),
    [
        (
            {"model": "nowhere:Net"},
            "Unknown student library 'nowhere' in 'nowhere:Net'. Known: tiny, timm, transformers,",
        ),
        ({"model": f"{OWN}:Nothing"}, f"student.model: {OWN}:Nothing cannot be imported: AttributeError"),
        ({"model": f"{OWN}:IMAGE"}, f"student.model: {OWN}:IMAGE must be a class, got a ImageTransform."),
        ({"model": f"{OWN}:Silent"}, f"student.model: class {OWN}:Silent lacks describe."),
        (
            {"model": f"{OWN}:Stranger"},
            f"student.model: class {OWN}:Stranger must be a subclass of aft_ray.models.students",
        ),
        ({"model": f"{OWN}:Described"}, f"{OWN}:Described.describe must return a tuple of transforms"),
        ({"model": f"{OWN}:Described", "options": {"as": ["x"]}}, "must return a tuple of transforms"),
        (
            {"model": "tiny:cnn", "options": {"width": 3}},
            "student.options has no meaning for tiny:cnn, only for a class of",
        ),
        ({"model": "timm:test_vit", "options": {"width": 3}}, "student.options has no meaning for timm:test_vit"),
    ],
)
def test_what_is_no_student_is_one_line(student: dict[str, Any], line: str) -> None:
    (fault,) = students.faults(StudentConfig(**student))
    assert line in fault


def test_logits_of_another_shape_are_told_when_it_is_built() -> None:
    with pytest.raises(InputError, match=r"must give logits of shape \(rows, 5\) .* got logits \(1, 16\) of one row"):
        build_student(config("Headless"), 5)


def test_batch_norm_of_a_class_of_one_s_own_is_seen() -> None:
    changes = {"student": config("Patches", batch_norm=True).model_dump(), "regularizer.name": "none"}
    given = override(recipe(), {**changes, "train.global_batch_size": 2, "train.accumulation_steps": 2})
    with pytest.raises(InputError, match="has batch norm, which needs two"):
        check(given, "train")


def test_it_is_trained_and_loaded_again(tmp_path: Path) -> None:
    student = config("Patches", width=2).model_dump(mode="json")
    train = {"train.steps": 6, "train.evaluate_every": 3}
    given = made_workspace(tmp_path / "work", {"student": student, **train})
    data = load_data(given, open_setup(given, "train").stores)
    history = run(given, tmp_path / "run", data)
    assert history[-1]["regularization"] > 0
    loaded = load_student(tmp_path / "run")
    assert loaded.facts["student"]["options"] == {"width": 2} and loaded.transforms == (IMAGE,)
    assert len(loaded(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))[0]) == len(loaded.classes)


RECIPE = """
workspace: work
dataset: {{source: image_folder, path: {pictures}}}
student: {{model: "mine:Patches", options: {{width: 3}}}}
regularizer: {{name: none}}
train: {{steps: 6, global_batch_size: 8, evaluate_every: 3}}
"""


@pytest.mark.ray
def test_every_verb_finds_it_in_the_working_directory(tmp_path: Path, image_folder: Path) -> None:
    shutil.copy(ROOT / "tests" / "helpers" / "own_students.py", tmp_path / "mine.py")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(pictures=image_folder))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    died = tmp_path / "work" / "predictions" / "main" / ".predicting-0123abcd"
    died.mkdir(parents=True)  # so Ray predicts
    for verb in (["prepare"], ["train"], ["evaluate"], ["predict", str(image_folder / "top")], ["export"]):
        command = [sys.executable, "-m", "aft_ray.cli", verb[0], "recipe.yaml", *verb[1:]]
        full = {**environment, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=full, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    card = (tmp_path / "work" / "runs" / "main" / "export" / "README.md").read_text()
    assert "# mine, the module of the student's class, must be installed or lie here" in card
    code = f"from aft_ray.export import load_student; print(load_student({str(tmp_path / 'work/runs/main/export')!r}).classes)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "['bottom', 'top']\n"
    with pytest.raises(InputError, match="Unknown student library 'mine'"):
        load_student(tmp_path / "work" / "runs" / "main" / "export")
