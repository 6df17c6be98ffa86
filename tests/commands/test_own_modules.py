"""Modules in the working directory: a recipe's own classes are found there, and nothing of Python's is hidden by them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aft_ray import __version__
from aft_ray.commands.own_modules import command_of_own, find_own_modules, script_directory_last
from aft_ray.recipe.config import Recipe
from tests.helpers import ROOT

HIDING = ("random", "numpy", "pyarrow", "torch", "emoji", "stat", "yaml", "argparse", "pandas", "pprint")
"""`prepare` imports the last two after it has read the recipe."""
OWN = """
from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers.base import TeacherDescription
import torch


class Halves(ImageTransform):  # travels to the processes that read pictures
    pass


class Means:
    feature_dim = 3

    @classmethod
    def describe(cls, config):
        return TeacherDescription("image", Halves(8, mean=(0, 0, 0), std=(1, 1, 1)), {"version": 1})

    def __init__(self, config, device):
        pass

    def __call__(self, inputs):
        return torch.tensor(inputs.mean((1, 2))).float()
"""
RECIPE = """
workspace: work
dataset: {{source: image_folder, path: {pictures}, samples_per_shard: 16}}
student: {{model: "tiny:cnn"}}
"""


@pytest.fixture
def folder(tmp_path: Path, image_folder: Path) -> Path:
    """A working directory with a recipe, and modules that say so when they are run."""
    for name in HIDING:
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\nraise SystemExit\n"
        )
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(pictures=image_folder))
    return tmp_path


def aft_ray(folder: Path, *arguments: str, command: tuple[str, ...] = ("-m", "aft_ray.cli")) -> str:
    """Runs a verb in `folder`; returns what it printed, and on stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(ROOT)
    full = [sys.executable, *command, *arguments]
    done = subprocess.run(full, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
    assert not (folder / "ran").exists(), (folder / "ran").read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.processes
def test_modules_beside_the_recipe_do_not_hide_python_s_own(folder: Path) -> None:
    job = (str(ROOT / "jobs" / "prepare.py"),)
    aft_ray(folder, "recipe.yaml", command=job)
    aft_ray(folder, "verify", "work")
    own_teacher = "teachers=[{model: 'mine:Means', name: mine}]"
    aft_ray(folder, "prepare", "recipe.yaml", own_teacher)
    aft_ray(folder, "recipe.yaml", own_teacher, "workspace=other", command=job)


@pytest.mark.processes
def test_a_setting_of_a_study_starts_where_every_module_of_python_s_is_hidden(tmp_path: Path) -> None:
    """`python -m` stops there at its own first import."""
    for name in sys.stdlib_module_names:
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    command = [*command_of_own(), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.stdout, done.stderr) == (f"aft-ray {__version__}\n", "")


@pytest.mark.ray
def test_workers_find_a_class_of_one_s_own_and_run_nothing_else_that_lies_there(folder: Path) -> None:
    aft_ray(folder, "prepare", "recipe.yaml")
    aft_ray(folder, "extract", "recipe.yaml", "teachers=[{model: 'mine:Means', name: mine}]")
    assert (folder / "work" / "features" / "mine" / "train" / "manifest.json").exists()


def recipe(**changes: object) -> Recipe:
    plain = {"workspace": "w", "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:cnn"}}
    return Recipe.model_validate(plain | changes)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ()),
        ({"teachers": ["timm:resnet18", "transformers:bert"]}, ()),
        ({"teachers": ["open_clip:ViT-B-32/openai"], "student": {"model": "open_clip:ViT-B-32"}}, ()),
        ({"teachers": ["timm:resnet18", "my_lab.teachers:Pathology"]}, ("my_lab.teachers:Pathology",)),
        ({"student": {"model": "mine:Net"}}, ("mine:Net",)),
        ({"search": {"space": {"student.model": ["tiny:cnn", "mine:Net"]}}}, ("mine:Net",)),
    ],
)
def test_the_working_directory_is_searched_last_and_only_for_a_class_of_one_s_own(
    changes: dict, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    monkeypatch.chdir(tmp_path)
    assert recipe(**changes).own_classes() == found
    find_own_modules(recipe(**changes))
    find_own_modules(recipe(**changes))
    assert sys.path == (["/elsewhere", str(tmp_path)] if found else ["/elsewhere"])


def test_the_directory_of_a_script_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/checkout/jobs/search.py"])
    monkeypatch.setattr(sys, "path", ["/checkout/jobs", "/python"])
    script_directory_last()
    script_directory_last()
    assert sys.path == ["/python", "/checkout/jobs"]
