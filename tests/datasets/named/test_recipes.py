"""Every recipe in jobs/recipes reads, names what exists, and says where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.datasets import NAMED, SOURCES
from aft_ray.models import students
from aft_ray.models.teachers import LIBRARIES
from aft_ray.recipe.config import load
from aft_ray.regularizers import REGULARIZERS
from tests.helpers import ROOT

RECIPES = sorted((ROOT / "jobs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    recipe = load(path)
    assert recipe.dataset.name in NAMED or recipe.dataset.source in SOURCES
    assert {recipe.regularizer.name, *recipe.search.compare} <= set(REGULARIZERS)
    assert {teacher.model.partition(":")[0] for teacher in recipe.teachers} <= set(LIBRARIES)
    if recipe.dataset.name:
        has = set(NAMED[recipe.dataset.name].modality.split("+")) | {"features"}
        assert set(students.modality(recipe.student).split("+")) <= has
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for key in ("command", "hardware"):
        assert any(line.startswith(f"#   {key}") for line in header), key
    if path.stem.startswith("paper-"):
        assert any(line.startswith("#   paper     arXiv 2406.07337") for line in header)
        assert any(line.startswith("#   expected") for line in header)


def test_timm_models_are_published() -> None:
    import timm

    known = set(timm.list_models(pretrained=True))
    for recipe in map(load, RECIPES):
        models = [*(teacher.model for teacher in recipe.teachers), recipe.student.model]
        named = {model.removeprefix("timm:") for model in models if model.startswith("timm:")}
        assert {name for name in named if "." in name} <= known
