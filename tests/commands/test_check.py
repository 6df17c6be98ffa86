"""A verb checks the sections it reads and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aft_ray.commands.check import PARTS, check, open_setup
from aft_ray.export import load_student
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import REGULARIZERS
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import Data, load_data
from tests.helpers.training import made_split, made_workspace

pytestmark = pytest.mark.slow

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


def test_faults_of_the_search_are_told_beside_other_sections_and_values_only_after_them(given: Recipe) -> None:
    search = {**SEARCH, "space": {"train.global_batch_size": [1, 64]}, "gpus_per_trial": 1.5}
    recipe = override(given, {"student.model": "tiny:rnn", "train.frozen_steps": 10_000, "search": search})
    with pytest.raises(InputError) as refused:
        check(recipe, "search")
    assert [line.split(" '")[0].split(" is ")[0] for line in refused.value.faults] == [
        "Unknown student",
        "train.frozen_steps",
        "Unknown regularizer",
        "search.gpus_per_trial",
    ]


EVERY_METHOD = [*REGULARIZERS, "tests.helpers.own_regularizers:Means"]


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_search_compares_the_methods_that_can_be_trained_on_the_task(method: str, task: str, tmp_path: Path) -> None:
    """The check refuses exactly the methods that a training on these samples would refuse."""
    data = Data(made_split(60, 0, task), made_split(31, 1, task), made_split(17, 2, task))
    given = made_workspace(tmp_path, {"search": {"compare": [method], "beta": [1.0]}}, data)
    alone = override(given, {"regularizer": {"name": method, "beta": 1.0}, "train.steps": 1})
    if method == "btune":
        with pytest.raises(InputError) as refused:
            open_setup(given, "search")
        line = f"search.compare has btune, which needs one class per sample; the task is {task}. Leave it out."
        assert refused.value.faults == [line]
        with pytest.raises(InputError, match="regularizer.name=btune needs one class per sample"):
            open_setup(alone, "train")
        return
    open_setup(given, "search")
    setup = open_setup(override(alone, {"train.streaming": False}), "train")
    run = Workspace.at(tmp_path).run("main")
    fit(setup.recipe, load_data(setup.recipe, setup.stores), directory=run, report=lambda metrics, state: None)


@pytest.mark.parametrize(
    ("search", "lines"),
    [
        (
            {"space": {"train.label_smoothing": [0.0, 0.1]}},
            ["search.space, train.label_smoothing=0.1: train.label_smoothing needs one class per sample"],
        ),
        (
            {"space": {"train.labels_per_class": [None, 5], "train.class_weights": ["none", "balanced"]}},
            [
                "search.space, train.labels_per_class=5: train.labels_per_class needs one class per sample",
                "search.space, train.class_weights=balanced: train.class_weights needs one class per sample",
            ],
        ),
        (
            {"compare": ["none", "btune"], "teachers": "top_2_by_rank"},
            [
                "search.compare has btune, which needs one class per sample",
                "search.teachers=top_2_by_rank needs one class per sample to rank teachers by",
            ],
        ),
    ],
)
def test_searched_values_that_need_one_class_are_told_all_at_once(
    search: dict[str, Any], lines: list[str], tmp_path: Path
) -> None:
    data = Data(made_split(60, 0, "multilabel"), made_split(31, 1, "multilabel"), made_split(17, 2, "multilabel"))
    given = made_workspace(tmp_path, {"search": {"beta": [1.0], **search}}, data)
    with pytest.raises(InputError) as refused:
        open_setup(given, "search")
    assert [fault.partition(";")[0] for fault in refused.value.faults] == lines


def test_a_recipe_that_names_its_task_is_told_before_there_are_samples(tmp_path: Path) -> None:
    table = {"name": None, "source": "csv", "path": "t.csv", "task": "multilabel", "columns": {"image": "picture"}}
    given = made_workspace(tmp_path, {"search": {"compare": ["btune"], "beta": [1.0]}, "dataset": table})
    with pytest.raises(InputError, match="search.compare has btune.*the task is multilabel"):
        check(given, "search")
    with pytest.raises(InputError, match="train.class_weights needs one class per sample"):
        check(override(given, {"train.class_weights": "balanced"}), "train")


def test_classes_can_be_weighted_where_the_recipe_names_no_task(given: Recipe) -> None:
    check(override(given, {"train.class_weights": "balanced"}), "train")
