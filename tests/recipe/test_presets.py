"""`train.preset` becomes keys; what the recipe or an override says beside it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.recipe.config import Recipe, dump, load, load_text, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.presets import PRESETS
from aft_ray.recipe.sections import TrainConfig

TEXT = "workspace: w\ndataset: {name: mnist5k}\nstudent: {model: 'tiny:cnn'}\ntrain: {preset: finetune, ema: null}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(TEXT)
    return tmp_path / "recipe.yaml"


def test_keys_beside_a_preset_stay_and_the_saved_recipe_has_keys_alone(file: Path) -> None:
    given = load(file)
    assert (given.train.layer_decay, given.train.augment, given.train.ema) == (0.9, "light", None)
    assert "preset" not in dump(given) and load_text(dump(given)) == given


def test_an_overriding_preset_replaces_keys_but_no_other_override(file: Path) -> None:
    given = load(file, ["train.preset=from_scratch", "train.augment=none"])
    assert (given.train.layer_decay, given.train.augment, given.train.ema) == (1.0, "none", 0.99)
    assert override(given, {"train.preset": "paper"}).train.optimizer == "adam"
    assert override(given, {"train.preset": "finetune"}).train.augment == "light"


def test_an_unknown_preset_is_one_line(file: Path) -> None:
    with pytest.raises(InputError) as stopped:
        load(file, ["train.preset=best"])
    assert stopped.value.faults == ["train.preset must be one of paper, finetune, from_scratch, got 'best'."]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_keys_of_the_section(name: str) -> None:
    assert TrainConfig.model_validate(PRESETS[name])


def test_the_defaults_are_the_paper_s() -> None:
    assert {key: getattr(TrainConfig(), key) for key in PRESETS["paper"]} == PRESETS["paper"]
    assert Recipe.model_fields["train"].default == TrainConfig()


def test_a_misspelt_preset_is_told_the_right_name(file: Path) -> None:
    with pytest.raises(InputError, match="Unknown key 'train.presett'. Did you mean 'preset'?"):
        load(file, ["train.presett=paper"])


@pytest.mark.parametrize(("steps", "warmup"), [(None, 50), (2000, 50), (200, 50), (120, 30), (12, 3), (3, 0)])
def test_a_preset_warms_up_for_a_quarter_of_a_short_training(steps: int | None, warmup: int) -> None:
    given = f"steps: {steps}, " if steps else ""
    for preset in ("finetune", "from_scratch"):
        recipe = load_text(TEXT.replace("preset: finetune", f"{given}preset: {preset}"))
        assert recipe.train.num_warmup_steps == warmup
        assert load_text(dump(recipe)) == recipe


def test_the_warm_up_of_a_preset_follows_later_steps_and_one_beside_the_preset_stays(file: Path) -> None:
    for shorter in (
        load(file, ["train.steps=100"]),
        override(load(file), {"train.steps": 100}),
        load_text(dump(load(file)).replace("steps: 1000", "steps: 100")),  # as `submit` sends it
    ):
        assert shorter.train.num_warmup_steps == 25
    assert load(file, ["train.steps=100", "train.warmup_steps=40"]).train.num_warmup_steps == 40
    assert override(load(file, ["train.warmup_steps=40"]), {"train.steps": 100}).train.num_warmup_steps == 40


@pytest.mark.parametrize("steps", ["many", "-3", ".inf", "-.inf", ".nan", "[1]"])
def test_steps_that_are_none_are_told_beside_a_preset(steps: str, file: Path) -> None:
    with pytest.raises(InputError) as stopped:
        load(file, [f"train.steps={steps}"])
    assert all(fault.startswith("train.steps") for fault in stopped.value.faults)
