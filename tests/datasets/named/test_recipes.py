"""Every recipe in jobs/recipes reads, names what exists, and says where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.datasets import NAMED, SOURCES
from aft_ray.models import students
from aft_ray.models.teachers import LIBRARIES
from aft_ray.recipe.config import Recipe, load
from aft_ray.recipe.model import is_own_class
from aft_ray.regularizers import REGULARIZERS
from aft_ray.study.config import load_study
from tests.helpers import ROOT

FILES = sorted(path for folder in ("", "paper") for path in (ROOT / "jobs" / "recipes" / folder).glob("*.yaml"))


def recipes(path: Path) -> list[Recipe]:
    """The recipe, or those of a study's settings."""
    return [*load_study(path).settings.values()] if "\nsettings:\n" in path.read_text() else [load(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    for recipe in recipes(path):
        check_names(recipe)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for key in ("command", "hardware"):
        assert any(line.startswith(f"#   {key}") for line in header), key
    if path.parent.stem == "paper":
        assert any(line.startswith("#   paper     arXiv 2406.07337") for line in header)
        assert any(line.startswith("#   expected") for line in header)


def check_names(recipe: Recipe) -> None:
    assert recipe.dataset.name in NAMED or recipe.dataset.source in SOURCES
    assert {recipe.regularizer.name, *recipe.search.compare} <= set(REGULARIZERS)
    models = {teacher.model for teacher in recipe.teachers if not is_own_class(teacher.model)}
    assert {model.partition(":")[0] for model in models} <= set(LIBRARIES)
    if recipe.dataset.name:
        has = set(NAMED[recipe.dataset.name].modality.split("+")) | {"features"}
        assert set(students.modality(recipe.student).split("+")) <= has


def test_timm_models_are_published() -> None:
    import timm

    known = set(timm.list_models(pretrained=True))
    for recipe in (recipe for path in FILES for recipe in recipes(path)):
        models = [*(teacher.model for teacher in recipe.teachers), recipe.student.model]
        named = {model.removeprefix("timm:") for model in models if model.startswith("timm:")}
        assert {name for name in named if "." in name} <= known
