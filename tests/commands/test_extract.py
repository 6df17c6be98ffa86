from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aft_ray.commands.extract import has_classes, show_features
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.store.parquet import features_table
from aft_ray.store.workspace import Workspace


@pytest.mark.parametrize(("task", "labels"), [("regression", [0.5, 1.5, 2.5]), ("classification", ["a", "b", "a"])])
def test_rank_is_the_next_command_where_samples_have_a_class(task: str, labels: list[object], tmp_path: Path) -> None:
    lines = [f"text {number},{labels[number % 3]}" for number in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    columns = {"text": "text", "label": "label"}
    dataset = {"source": "csv", "path": str(tmp_path / "t.csv"), "columns": columns, "task": task}
    recipe = Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:text"}}
    )
    prepare(recipe)
    assert has_classes(recipe) == (task == "classification")


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
