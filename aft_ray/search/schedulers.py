"""Schedulers end a trial early or change it, given its `step` and `score` at each evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining

from aft_ray.recipe.config import Recipe
from aft_ray.recipe.search_section import Range
from aft_ray.search.space import BETA, Space, rounded


def grace_steps(recipe: Recipe) -> int:
    """Steps before a trial may be stopped or changed."""
    return recipe.search.grace_steps or max(1, recipe.train.steps // 3)


def _most_steps(recipe: Recipe) -> int:
    """Steps of the longest trial."""
    searched = (keys.get("train.steps", ()) for keys in (recipe.search.space, *recipe.search.per_method.values()))
    lists = [values if isinstance(values, tuple) else (int(values.max),) for values in searched]
    return max([recipe.train.steps, *itertools.chain.from_iterable(lists)])


class AshaPerMethod(FIFOScheduler):
    """ASHA (arXiv 1810.05934) among the trials of one method, so that no method stops a slower one.

    ask: asks the trial of this name to stop; without it, Tune kills its process.
    """

    def __init__(self, recipe: Recipe, ask: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self.ask = ask
        self.asked: set[str] = set()
        self.max_steps = _most_steps(recipe)
        self.grace_steps, self.factor = min(grace_steps(recipe), self.max_steps), recipe.search.reduction_factor
        self.schedulers: dict[str, ASHAScheduler] = {}

    def remember(self, method: str, name: str, reports: Iterable[tuple[int, float]]) -> None:
        """Replays the (step, score) reports of a finished trial, made to an earlier process of the search."""
        trial = _Known(name, {"trial": {"method": method}})
        self.on_trial_add(None, trial)
        for step, score in reports:
            if self._scheduler(trial).on_trial_result(None, trial, {"step": step, "score": score}) == self.STOP:
                break

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._scheduler(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.trial_id in self.asked:
            return self.CONTINUE
        decision = self._scheduler(trial).on_trial_result(tune_controller, trial, result)
        if decision == self.STOP and self.ask:
            self.asked.add(trial.trial_id)
            self.ask(trial.custom_trial_name)
            return self.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._scheduler(trial).on_trial_complete(tune_controller, trial, result)

    def _scheduler(self, trial: Any) -> ASHAScheduler:
        method = trial.config["trial"]["method"]
        if method not in self.schedulers:
            scheduler = ASHAScheduler(
                "step", max_t=self.max_steps, grace_period=self.grace_steps, reduction_factor=self.factor
            )
            scheduler.set_search_properties("score", "max")
            self.schedulers[method] = scheduler
        return self.schedulers[method]


@dataclass
class _Known:
    """The attributes of a trial that ASHA reads."""

    trial_id: str
    config: dict[str, Any]
    status: str = "RUNNING"
    last_result: dict[str, Any] = field(default_factory=dict)


def population(recipe: Recipe, space: Space) -> PopulationBasedTraining:
    """Population based training (arXiv 1711.09846) of the trials of one method: the worst quarter copies weights, teachers and
    values from the best; then values of ranges are moved by a fifth or drawn anew."""
    ranges = {key: values for key, values in space.values.items() if isinstance(values, Range)}

    def domain(key: str) -> Any:
        draw = tune.loguniform if ranges[key].log else tune.uniform
        return draw(ranges[key].min, ranges[key].max)

    def keep_inside(config: dict[str, Any]) -> dict[str, Any]:
        for key, values in ranges.items():
            section, name = _place(config["trial"], key)
            section[name] = rounded(min(max(section[name], values.min), values.max))
        return config

    mutations: dict[str, Any] = {"others": {key: domain(key) for key in ranges if key != BETA}}
    if BETA in ranges:
        mutations["beta"] = domain(BETA)
    return PopulationBasedTraining(
        time_attr="step",
        perturbation_interval=grace_steps(recipe),
        hyperparam_mutations={"trial": {key: value for key, value in mutations.items() if value}},
        custom_explore_fn=keep_inside,
        log_config=False,
    )


def _place(trial: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    return (trial, "beta") if key == BETA else (trial["others"], key)


def reports(history: Sequence[dict[str, Any]], scores: Sequence[float]) -> list[tuple[int, float]]:
    """(step, best score so far) at every evaluation of a trial."""
    best, found = -float("inf"), []
    for line, score in zip(history, scores, strict=True):
        best = max(best, score)
        found.append((line["step"], best))
    return found
