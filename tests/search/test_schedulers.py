from __future__ import annotations

from typing import Any

from aft_ray.recipe.config import Recipe, override
from aft_ray.search.schedulers import AshaPerMethod, population, reports
from aft_ray.search.space import spaces
from tests.search.test_space import planned


class FakeTrial:
    """What Tune's schedulers look at."""

    def __init__(self, name: str, method: str) -> None:
        self.trial_id = self.custom_trial_name = name
        self.config, self.status = {"trial": {"method": method}}, "RUNNING"


def thirty_steps(**section: Any) -> Recipe:
    return override(planned(**section), {"train.steps": 30})


def decide(scheduler: AshaPerMethod, name: str, method: str, score: float) -> str:
    trial = FakeTrial(name, method)
    scheduler.on_trial_add(None, trial)
    return scheduler.on_trial_result(None, trial, {"step": 10, "training_iteration": 1, "score": score})


def test_asha_compares_trials_of_one_method_only() -> None:
    scheduler = AshaPerMethod(thirty_steps())
    scores = {"fast": ("aft", 0.9), "slow": ("kd", 0.2), "slower": ("kd", 0.1)}
    decisions = {name: decide(scheduler, name, *values) for name, values in scores.items()}
    assert decisions == {"fast": "CONTINUE", "slow": "CONTINUE", "slower": "STOP"}


def test_asha_remembers_trials_of_an_earlier_process() -> None:
    undisturbed, restarted = AshaPerMethod(thirty_steps()), AshaPerMethod(thirty_steps())
    first = [(5, 0.1), (10, 0.3), (20, 0.5)]
    for step, score in first:
        if step == 5:
            decide(undisturbed, "first", "aft", score)
    restarted.remember("aft", "first", first)
    assert decide(restarted, "second", "aft", 0.2) == "STOP", "below what the first had at step 10"
    assert decide(AshaPerMethod(thirty_steps()), "second", "aft", 0.2) == "CONTINUE"


def test_grace_and_reduction_are_the_recipe_s() -> None:
    strict = AshaPerMethod(thirty_steps(grace_steps=10, reduction_factor=4))
    decisions = [decide(strict, str(number), "aft", score) for number, score in enumerate((0.4, 0.3, 0.35, 0.5))]
    assert decisions == ["CONTINUE", "STOP", "STOP", "CONTINUE"]
    patient = AshaPerMethod(thirty_steps(grace_steps=20))
    assert [decide(patient, str(number), "aft", 1 - number) for number in range(3)] == ["CONTINUE"] * 3


def test_a_trial_that_ends_by_itself_is_asked_once_and_left_alone_from_then_on() -> None:
    asked: list[str] = []
    scheduler = AshaPerMethod(thirty_steps(), asked.append)
    assert decide(scheduler, "first", "aft", 0.9) == "CONTINUE"
    trial = FakeTrial("second", "aft")
    scheduler.on_trial_add(None, trial)
    for step in (10, 20, 30):
        assert scheduler.on_trial_result(None, trial, {"step": step, "score": 0.1}) == "CONTINUE"
    assert asked == ["second"]


def test_scores_are_reported_as_the_best_so_far() -> None:
    history = [{"step": 5}, {"step": 10}, {"step": 15}]
    assert reports(history, [0.2, 0.1, 0.4]) == [(5, 0.2), (10, 0.2), (15, 0.4)]


def test_a_population_moves_numbers_inside_their_ranges() -> None:
    space = {"train.learning_rate": {"min": 0.001, "max": 0.01}, "train.optimizer": ["adam", "sgd"]}
    given = thirty_steps(
        compare=["aft"], beta={"min": 1, "max": 4}, space=space, scheduler="pbt", searcher="random", num_samples=4
    )
    scheduler = population(given, spaces(given, [("a",)])[0])
    mutations = scheduler._hyperparam_mutations["trial"]
    assert set(mutations) == {"beta", "others"} and set(mutations["others"]) == {"train.learning_rate"}
    outside = {"trial": {"beta": 4.7, "others": {"train.learning_rate": 0.0005, "train.optimizer": "adam"}}}
    inside = scheduler._custom_explore_fn(outside)["trial"]
    assert (inside["beta"], inside["others"]) == (4.0, {"train.learning_rate": 0.001, "train.optimizer": "adam"})
