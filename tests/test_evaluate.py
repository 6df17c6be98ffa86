from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aft_ray.check import open_stores
from aft_ray.config import InputError, Recipe
from aft_ray.evaluate import evaluate
from aft_ray.fit import fit, load_data
from aft_ray.prepare import prepare
from aft_ray.store import Workspace


@pytest.fixture
def trained(tmp_path: Path, image_folder: Path) -> Recipe:
    recipe = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder)},
            "student": {"model": "tiny:cnn"},
            "regularizer": {"name": "none"},
            "train": {"steps": 8, "global_batch_size": 16, "learning_rate": 0.003},
        }
    )
    prepare(recipe)
    run = Workspace.at(recipe.workspace).run("main")
    fit(recipe, load_data(recipe, open_stores(recipe)), directory=run, report=lambda metrics, state: None)
    return recipe


def test_a_run_s_score_is_repeated_class_by_class(trained: Recipe) -> None:
    result = evaluate(trained)
    place = Path(trained.workspace) / "runs" / "main"
    last = json.loads((place / "metrics.jsonl").read_text().splitlines()[-1])
    assert result["accuracy"] == pytest.approx(last["test_accuracy"])
    confusion = np.array(result["confusion"])
    manifest = Workspace.at(trained.workspace).samples("test").manifest()
    assert manifest is not None
    assert confusion.sum(1).tolist() == list(manifest["samples_per_class"].values())
    assert result["accuracy_per_class"]["top"] == pytest.approx(confusion[1, 1] / confusion[1].sum())
    assert json.loads((place / "evaluation-test.json").read_text()) == result


def test_what_cannot_be_evaluated_is_named(trained: Recipe) -> None:
    with pytest.raises(InputError, match="Unknown split 'tset'. Known: train, validation, test."):
        evaluate(trained, "tset")
    with pytest.raises(InputError, match="holds no trained student"):
        evaluate(trained.model_copy(update={"run": "other"}))
