from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aft_ray.commands.extract import show_features
from aft_ray.recipe.config import Recipe
from aft_ray.store.parquet import features_table
from aft_ray.store.workspace import Workspace


def test_extract_shows_the_samples_that_each_teacher_quarantined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for teacher, quarantined in (("one", [0, 2]), ("two", [])):
        directory = Workspace.at(str(tmp_path)).features(teacher, "train")
        table = features_table(["a", "b", "c"], np.ones((3, 4), np.float32), quarantined=quarantined)
        samples = [{"sample_id": "abc"[row], "reason": "it is not a picture"} for row in quarantined]
        directory.write_shard(0, table, {"model": teacher}, quarantined=samples)
        directory.write_manifest(1, {"model": teacher}, feature_dim=4)
    recipe = Recipe.model_validate(
        {"workspace": str(tmp_path), "dataset": {"name": "digits"}, "student": {"model": "tiny:cnn"}}
    )
    show_features(recipe, {"one": 1, "two": 0})
    lines = [line.strip(" │|").split() for line in capsys.readouterr().out.splitlines()]
    cells = [[cell for cell in line if cell not in "│|┃"] for line in lines]
    assert ["one", "1", "2"] in cells and ["two", "0", "0"] in cells
