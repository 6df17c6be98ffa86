"""A verb checks the sections it reads and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.commands.check import PARTS, check, open_setup
from aft_ray.export import load_student
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import load_data
from tests.helpers.training import made_workspace

SEARCH = {"compare": ["none", "dk"], "beta": {"aft": [1]}}


@pytest.fixture
def given(tmp_path: Path) -> Recipe:
    return made_workspace(tmp_path)


def test_a_wrong_search_concerns_search_alone(given: Recipe) -> None:
    wrong = override(given, {"search": SEARCH})
    for verb in set(PARTS) - {"search", "pipeline", "prepare", "plan"}:
        check(wrong, verb)
    with pytest.raises(InputError, match="Unknown regularizer 'dk'"):
        check(wrong, "search")


def test_a_method_without_strengths_in_the_search_can_be_trained(given: Recipe) -> None:
    recipe = override(given, {"regularizer.name": "kkd", "search": {"beta": {"aft": [1]}}})
    open_setup(recipe, "train")
    with pytest.raises(InputError, match="search.beta has no strengths for 'kkd'"):
        check(recipe, "search")


def test_standard_transfer_needs_no_teacher_and_no_features(given: Recipe) -> None:
    teachers = [{"name": "absent", "model": "timm:test_vit", "weights": "/nowhere.pth"}]
    recipe = override(given, {"teachers": teachers})
    setup = open_setup(override(recipe, {"regularizer.name": "none", "train.streaming": False}), "train")
    assert setup.stores["train"].features == ()
    run = Workspace.at(given.workspace).run("main")
    fit(setup.recipe, load_data(setup.recipe, setup.stores), directory=run, report=lambda metrics, state: None)
    assert load_student(run).facts["teachers"] == []
    with pytest.raises(InputError, match="'absent'.*nowhere"):
        open_setup(recipe, "train")


def test_faults_of_two_sections_are_told_at_once_and_once(given: Recipe) -> None:
    recipe = override(given, {"teachers": ["tim:vit"], "student.model": "tiny:rnn", "regularizer.name": "atf"})
    with pytest.raises(InputError) as refused:
        check(recipe, "search")
    assert [line.split(" '")[0] for line in refused.value.faults] == [
        "Unknown teacher library",
        "Unknown student",
        "Unknown regularizer",
    ]
