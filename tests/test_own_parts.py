"""Sources, searchers and schedulers of the user's own, named `module:Class` as teachers are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aft_ray.commands.check import check, open_setup
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.search.search import search
from tests.helpers.training import made_workspace

OWN = "tests.helpers.own_parts"


def slides(place: Path) -> Recipe:
    (place / "slides").mkdir()
    for number in range(20):
        name = ("cell", "void")[number % 2]
        Image.new("RGB", (8, 8), (12 * number, 0, 0)).save(place / "slides" / f"{name}-{number:02d}.png")
    dataset = {"source": f"{OWN}:Slides", "path": str(place / "slides"), "options": {"separator": "-"}}
    return Recipe.model_validate(
        {"workspace": str(place / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    )


def test_a_source_of_one_s_own_lists_samples_with_its_own_options(tmp_path: Path) -> None:
    recipe = slides(tmp_path)
    check(recipe, "prepare")
    manifests = prepare(recipe)
    assert manifests["train"]["classes"] == ["cell", "void"]
    assert sum(manifest["num_samples"] for manifest in manifests.values()) == 20


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("dataset.source", "tests.nowhere:Slides", "dataset: dataset.source: tests.nowhere:Slides cannot be imported"),
        (
            "dataset.source",
            f"{OWN}:Path",
            "dataset: dataset.source: class tests.helpers.own_parts:Path lacks list_samples",
        ),
        (
            "search.scheduler",
            f"{OWN}:Slides",
            "search.scheduler: class tests.helpers.own_parts:Slides lacks on_trial_result",
        ),
        ("search.searcher", f"{OWN}:OWN", "search.searcher: tests.helpers.own_parts:OWN cannot be imported"),
    ],
)
def test_a_class_that_is_not_one_is_told_with_its_key(tmp_path: Path, key: str, value: str, line: str) -> None:
    changes: dict[str, Any] = {key: value, "search.num_samples": 2, "regularizer.name": "none"}
    with pytest.raises(InputError, match=re.escape(line)):
        check(override(slides(tmp_path), changes), "pipeline")


@pytest.mark.parametrize("key", ["dataset.source", "search.scheduler", "search.searcher"])
def test_a_name_that_is_neither_known_nor_a_class_is_refused_with_the_known_ones(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=f"{key} must be one of .*, or a class of your own, module:Class; got 'ahsa'"):
        override(slides(tmp_path), {key: "ahsa"})


@pytest.mark.ray
def test_a_search_with_a_searcher_and_a_scheduler_of_one_s_own(cluster: None, tmp_path: Path) -> None:
    section = {
        "searcher": f"{OWN}:Doubling",
        "scheduler": f"{OWN}:FirstEvaluation",
        "num_samples": 3,
        "teachers": "singles",
    }
    train = {"steps": 6, "evaluate_every": 2, "global_batch_size": 16}
    given = made_workspace(tmp_path, {"train": train, "search": {**section, "final": {"seeds": 0}}})
    rows = search(open_setup(given, "search"))
    assert [row["regularizer.beta"] for row in rows] == [1, 2, 4][: len(rows)] and len(rows) >= 2
    assert {row["status"] for row in rows} == {"stopped"}
