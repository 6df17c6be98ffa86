"""The search space: grids, draws, names, and every fault of the section before anything starts."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import REGULARIZERS
from aft_ray.regularizers.aft import KernelRegularizer
from aft_ray.search.schedulers import AshaPerMethod
from aft_ray.search.space import (
    Setting,
    Trial,
    final_trials,
    plan_trials,
    space_faults,
    spaces,
    teacher_subsets,
    top_by_rank,
)
from aft_ray.training.check import setting_faults


def planned(**section: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "workspace": "w",
            "dataset": {"name": "mnist5k"},
            "student": {"model": "tiny:cnn"},
            "teachers": [{"name": name, "model": f"timm:{name}"} for name in ("a", "b", "c")],
            "search": section,
        }
    )


def trials(recipe: Recipe) -> list[Trial]:
    return plan_trials(recipe, teacher_subsets(recipe))


def test_combinations_are_in_the_recipe_s_order() -> None:
    singles, pairs = [("a",), ("b",), ("c",)], [("a", "b"), ("a", "c"), ("b", "c")]
    assert teacher_subsets(planned()) == [*singles, *pairs, ("a", "b", "c")]
    assert teacher_subsets(planned(teachers="singles")) == singles
    assert teacher_subsets(planned(teachers="singles_and_pairs")) == singles + pairs
    assert teacher_subsets(planned(teachers=[["c", "a"], ["b"], ["a", "c"]])) == [("a", "c"), ("b",)]
    ranked = planned(teachers="top_2_by_rank")
    assert (top_by_rank(ranked), top_by_rank(planned())) == (2, None)
    assert teacher_subsets(ranked) == teacher_subsets(planned())


def test_the_grid_is_betas_times_combinations_per_method_and_standard_transfer_once() -> None:
    found = trials(planned(compare=["none", "kd", "aft"], beta={"kd": [1], "all": [2, 3]}))
    counts = {method: sum(trial.setting.method == method for trial in found) for method in ("none", "kd", "aft")}
    assert counts == {"none": 1, "kd": 7, "aft": 14}
    assert {trial.setting.beta for trial in found if trial.setting.method == "kd"} == {1}
    assert len({trial.name for trial in found}) == len(found)


def test_any_key_is_searched_with_the_methods_that_have_it() -> None:
    space = {"train.learning_rate": [1e-3, 3e-3], "regularizer.learn_gates": [True, False]}
    found = trials(planned(compare=["none", "kd", "aft"], beta=[1], teachers=[["a"]], space=space))
    settings = {method: [t.setting.others for t in found if t.setting.method == method] for method in ("none", "kd")}
    assert settings["none"] == settings["kd"] == [(("train.learning_rate", 1e-3),), (("train.learning_rate", 3e-3),)]
    of_aft = [dict(trial.setting.others) for trial in found if trial.setting.method == "aft"]
    assert len(of_aft) == 4 and {setting["regularizer.learn_gates"] for setting in of_aft} == {True, False}
    recipe = next(t for t in found if dict(t.setting.others).get("regularizer.learn_gates") is False).recipe(planned())
    assert recipe.regularizer.options == {"learn_gates": False} and recipe.train.learning_rate == 1e-3


def test_a_trial_of_fewer_steps_warms_up_for_its_own_share_of_them() -> None:
    given = override(planned(space={"train.steps": [40, 400]}), {"train.preset": "finetune", "train.steps": 400})
    found = {trial.recipe(given).train.steps: trial.recipe(given).train.num_warmup_steps for trial in trials(given)}
    assert found == {40: 10, 400: 50}
    assert space_faults(given, setting_faults) == []
    fixed = override(given, {"train.warmup_steps": 50})
    assert "train.warmup_steps is 50" in space_faults(fixed, setting_faults)[0], "a number in the recipe stays"


def test_a_method_has_values_of_its_own_which_replace_those_of_all() -> None:
    given = planned(
        compare=["none", "kd", "aft"],
        beta=[1],
        teachers=[["a"]],
        space={"train.steps": [10, 20]},
        per_method={
            "kd": {"regularizer.learning_rate": 1e-4, "train.steps": 3000},
            "aft": {"regularizer.learn_gates": [True, False]},
        },
    )
    found = trials(given)
    others = {method: [t.setting.others for t in found if t.setting.method == method] for method in ("none", "kd")}
    assert others["none"] == [(("train.steps", 10),), (("train.steps", 20),)]
    assert others["kd"] == [(("regularizer.learning_rate", 1e-4), ("train.steps", 3000))]
    recipes = [trial.recipe(given) for trial in found]
    assert {r.regularizer.learning_rate for r in recipes if r.regularizer.name == "kd"} == {1e-4}
    assert {r.regularizer.learning_rate for r in recipes if r.regularizer.name == "aft"} == {0.01}
    assert sum(trial.setting.method == "aft" for trial in found) == 4
    assert AshaPerMethod(given).max_steps == 3000


def test_faults_of_one_method_s_values_are_told_at_once() -> None:
    per_method = {
        "rkd": {"train.steps": 5},
        "dk": {"train.steps": 5},
        "kd": {"regularizer.learn_gates": False, "student.image_size": 32, "regularizer.beta": 3},
        "aft": {"regularizer.learning_rate": [0.1, -1]},
    }
    first, *others = space_faults(planned(compare=["kd", "aft"], per_method=per_method), lambda recipe: [])
    assert first.startswith("search.per_method.dk: Unknown regularizer 'dk'")
    assert others == [
        "search.per_method.kd has regularizer.learn_gates, which is no key of kd.",
        "search.per_method.kd cannot have student.image_size: keys of regularizer, train can be searched.",
        "search.per_method.kd cannot have regularizer.beta. Use search.beta.",
        "search.per_method.aft, regularizer.learning_rate=-1: regularizer.learning_rate must be greater than 0, got -1.",
    ]
    wrong: Any
    for wrong in ([1], {"kd": 3}, {"kd": {"train.steps": []}}):
        with pytest.raises(ValueError, match="per_method"):
            planned(per_method=wrong)
    with pytest.raises(ValueError, match="cannot hold the range of regularizer.learning_rate of kd"):
        planned(compare=["kd"], per_method={"kd": {"regularizer.learning_rate": {"min": 0.001, "max": 0.1}}})


def test_draws_are_the_same_again_and_lie_in_their_ranges() -> None:
    given = planned(
        compare=["none", "aft"],
        beta={"min": 0.1, "max": 100},
        searcher="random",
        num_samples=50,
        space={"train.learning_rate": {"min": 0.001, "max": 0.002, "log": False}},
    )
    found = trials(given)
    assert found == trials(given) != trials(override(given, {"train.seed": 1}))
    assert len({trial.setting for trial in found}) == len(found) == 100
    of_aft = [trial.setting for trial in found if trial.setting.method == "aft"]
    assert all(0.1 <= setting.beta <= 100 for setting in of_aft)
    assert sum(setting.beta < 3.2 for setting in of_aft) in range(15, 36), "half of a range in its logarithm"
    assert all(0.001 <= dict(setting.others)["train.learning_rate"] <= 0.002 for setting in of_aft)
    assert len(trials(planned(num_samples=5))) == 5
    assert len(trials(planned(num_samples=500))) == 28, "there are not more"


def test_balanced_draws_try_no_value_more_often_than_another() -> None:
    given = planned(
        compare=["aft", "kd"],
        beta=[1, 2, 4, 8],
        teachers=[["a"]],
        searcher="balanced",
        num_samples=8,
        space={"train.learning_rate": [0.1, 0.2, 0.4], "train.steps": [10, 30]},
    )
    found = trials(given)
    assert found == trials(given) != trials(override(given, {"dataset.split_seed": 1}))
    assert len({trial.setting for trial in found}) == 16
    for method in ("aft", "kd"):
        settings = [trial.setting for trial in found if trial.setting.method == method]
        rows = [(s.beta, *(value for _, value in s.others)) for s in settings]
        assert {*Counter(beta for beta, _, _ in rows).values()} == {2}
        assert {*Counter((beta, steps) for beta, _, steps in rows).values()} == {1}, "each strength with both lengths"
        assert {*Counter(rate for _, rate, _ in rows).values()} == {2, 3}
        assert len({(beta, rate) for beta, rate, _ in rows}) == 8
    with_range = override(given, {"search.beta": {"min": 0.1, "max": 1000}})
    betas = sorted(t.setting.beta for t in trials(with_range) if t.setting.method == "aft")
    assert [int(2 * math.log10(beta / 0.1)) for beta in betas] == [*range(8)], "one in each eighth of the range"
    assert len(trials(override(given, {"search.num_samples": 100}))) == 48, "there are not more"


def test_without_strengths_in_the_recipe_each_method_tries_four_of_its_own() -> None:
    found = {
        space.method: tuple(space.values["regularizer.beta"])
        for space in spaces(planned(compare=[*REGULARIZERS]), [("a",)])
    }
    assert found.pop("none") == (0.0,)
    assert {len(values) for values in found.values()} == {4}
    kernels = [name for name, kind in REGULARIZERS.items() if issubclass(kind, KernelRegularizer)]
    assert all(min(found[method]) == 0.02 for method in kernels) and "aft" in kernels and "kkd" in kernels
    given = spaces(planned(compare=["aft", "kd"], beta={"aft": [1, 2], "all": [3, 4]}), [("a",)])
    assert [space.values["regularizer.beta"] for space in given] == [(1, 2), (3, 4)]


def test_seeds_multiply_trials_and_final_runs_have_seeds_of_their_own() -> None:
    given = planned(beta=[1], teachers=[["a"]], seeds=2, final={"seeds": 3})
    assert [trial.seed for trial in trials(given)] == [0, 1]
    finals = final_trials(given, trials(given)[0].setting)
    assert [(trial.stage, trial.seed) for trial in finals] == [("final", 2), ("final", 3), ("final", 4)]


def test_a_trial_s_recipe_has_its_values_and_its_teachers_only() -> None:
    base = planned(compare=["none", "aft"], teachers=[["a"], ["b", "c"]])
    base = override(base, {"regularizer.learn_gates": False, "train.num_workers": 2})
    trial = Trial("final", Setting("aft", 7.0, ("b", "c"), (("student.image_size", 32),)), 5)
    recipe = trial.recipe(base)
    assert (recipe.teacher_names(), recipe.student.image_size) == (("b", "c"), 32)
    assert (recipe.regularizer.beta, recipe.train.seed, recipe.train.num_workers) == (7.0, 5, 1)
    assert recipe.regularizer.options == {"learn_gates": False}
    other = Trial("final", Setting("kd", 7.0, ("b",)), 5)
    assert other.recipe(base).regularizer.options == {}
    assert Trial.of(trial.to_json()) == trial


def test_names_are_readable_and_never_the_same() -> None:
    plain = Setting("aft", 3.0, ("a", "b"), (("train.learning_rate", 0.003),))
    assert plain.name == "aft-beta3-a_b-train.learning_rate_0.003"
    odd = [Setting("aft", 3.0, ("a",), (("student.model", model),)) for model in ("timm:x/y", "timm:x_y")]
    many = [Setting("aft", 3.0, ("t" * 100, end)) for end in ("x" * 100, "y" * 100)]
    names = [setting.name for setting in odd + many]
    assert len(set(names)) == 4 and all("/" not in name and len(name) < 140 for name in names)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"beta": {"min": 1, "max": 10}},
            "a grid cannot hold the range of beta of all; set searcher to random, balanced or optuna",
        ),
        ({"beta": {"min": 10, "max": 1}}, "must have min < max, got 10 and 1"),
        ({"space": {"train.learning_rate": {"min": 0, "max": 1}}}, "must have min > 0 with log: true, got 0"),
        ({"searcher": "random"}, "searcher 'random' needs num_samples"),
        ({"scheduler": "pbt"}, "scheduler 'pbt' changes numbers of ranges"),
        (
            {"scheduler": "pbt", "workers_per_trial": 2},
            "scheduler 'pbt' is for trials of one worker; with several take",
        ),
        ({"subsets_as": "bits"}, "subsets_as 'bits' is for searcher 'optuna'"),
        ({"teachers": "top_0_by_rank"}, "must be all_subsets, singles, singles_and_pairs, top_K_by_rank"),
        ({"teachers": [["a"], []]}, "search.teachers has an empty combination"),
        ({"teachers": [["d"]]}, "search.teachers names 'd'; teachers: a, b, c"),
        ({"metric": "test_accuracy"}, "search.metric must be 'val_accuracy' or 'val_loss', got 'test_accuracy'"),
        ({"space": {"train.steps": []}}, "train.steps must be a list of values"),
        ({"final_seeds": 3}, "Unknown key 'search.final_seeds'. Did you mean"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        override(planned(), {"search": section})
    assert message in str(raised.value)


def test_the_space_s_faults_are_told_all_at_once() -> None:
    space = {
        "train.learning_rat": [1],
        "train.steps": [10, -1],
        "train.seed": [0, 1],
        "dataset.max_samples": [1, 2],
        "regularizer.nothing": [1],
        "student.model": ["tiny:cnn"],
    }
    faults = space_faults(planned(compare=["none", "aft"], space=space), lambda recipe: [])
    assert [fault.partition(".")[2][:30] for fault in faults] and len(faults) == 5
    joined = "\n".join(faults)
    assert "Unknown key 'train.learning_rat'. Did you mean 'learning_rate'?" in joined
    assert "search.space, train.steps=-1: train.steps must be greater than 0, got -1." in joined
    assert "cannot have train.seed. Use search.seeds" in joined
    assert "cannot have dataset.max_samples: keys of student, regularizer, train can be searched" in joined
    assert "regularizer.nothing, which is no key of none, aft" in joined


def test_each_method_has_a_space_of_its_own() -> None:
    given = planned(compare=["none", "aft", "aft"], beta=[1, 2])
    assert [(space.method, space.size()) for space in spaces(given, [("a",), ("b",)])] == [("none", 1), ("aft", 4)]
