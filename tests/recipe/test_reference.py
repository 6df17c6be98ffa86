"""Every key of a recipe is described, and the pages made from the models are up to date."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from aft_ray.recipe.reference import SCHEMA, json_schema, markdown, recipe_keys
from tests.helpers import ROOT

RECIPES = sorted((ROOT / "jobs" / "recipes").glob("*.yaml"))
MINIMAL = {"workspace": "w", "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:cnn"}}


def test_no_key_is_without_a_description() -> None:
    assert [key.name for key in recipe_keys() if not key.description.strip()] == []
    assert len(recipe_keys()) > 100


def test_each_key_has_a_type_and_a_default_or_must_be_given() -> None:
    keys = {key.name: key for key in recipe_keys()}
    assert (keys["train.steps"].type, keys["train.steps"].default) == ("whole number > 0 and <= 1,000,000,000", "1000")
    assert keys["student.model"].default is None
    assert keys["teachers[].tower"].type == "`image`, `text` or null"
    assert keys["dataset.copy"].default == "true"  # its name in the recipe, not in the model


@pytest.mark.parametrize(("place", "made"), [(ROOT / "docs" / "recipe.md", markdown), (SCHEMA, json_schema)])
def test_the_page_and_the_schema_are_what_make_reference_writes(place: Path, made: object) -> None:
    assert callable(made) and place.read_text() == made(), "run 'make reference'"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_schema_accepts_our_recipes_which_name_it(path: Path) -> None:
    text = path.read_text()
    first, content = text.splitlines()[0], yaml.safe_load(text)
    assert (path.parent / first.partition("$schema=")[2]).resolve() == SCHEMA.resolve()
    jsonschema.validate(content, json.loads(json_schema()))


@pytest.mark.parametrize(
    "more",
    [
        {"teachers": ["timm:a", {"model": "timm:b"}]},
        {"search": {"beta": 3}},
        {"search": {"beta": [1, 3]}},
        {"search": {"beta": {"min": 0.1, "max": 3}, "searcher": "random", "num_samples": 2}},
        {"search": {"beta": {"kd": 1, "all": [1, 3]}, "space": {"train.seed": [0, 1]}}},
        {"dataset": {"source": "csv", "path": "a.csv", "columns": {"text": ["a", "b"]}, "splits": {"train": "x"}}},
        {"regularizer": {"name": "aft", "learn_gates": False}},
    ],
)
def test_the_schema_accepts_each_form_that_a_recipe_may_take(more: dict[str, object]) -> None:
    jsonschema.validate(MINIMAL | more, json.loads(json_schema()))


@pytest.mark.parametrize(
    "wrong", [{"trian": {}}, {"train": {"steps": 0}}, {"train": {"optimizer": "adm"}}, {"search": {"beta": "x"}}]
)
def test_the_schema_refuses_a_wrong_key_or_value(wrong: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(MINIMAL | wrong, json.loads(json_schema()))
