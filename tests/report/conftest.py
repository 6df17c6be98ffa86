"""The recipe of the workspace that a test of the report fills."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.recipe.config import Recipe
from tests.helpers.report import recipe_at


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return recipe_at(tmp_path)
