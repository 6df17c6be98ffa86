"""The trials and the duration of a search, from a short training here; writes nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

from aft_ray.cluster.scratch import scratch
from aft_ray.recipe.config import Recipe, override
from aft_ray.search.best import group_of
from aft_ray.search.search import plan_search
from aft_ray.search.space import Trial, teacher_subsets
from aft_ray.search.trials import TrialDirectory
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import TrainingState
from aft_ray.training.fit import fit, next_evaluation
from aft_ray.training.inputs.data import load_data
from aft_ray.training.inputs.stores import Setup, open_setup
from aft_ray.training.train import decide_streaming

PROBE_STEPS = 4


@dataclass(frozen=True)
class SearchPlan:
    """trials: before the final ones; with Optuna as many random draws. num_over: finished trials and final runs in the
    workspace, which are not run again. num_further: trials of finalists with further seeds. num_final: final runs of all
    methods.

    step_s, evaluation_s: times of the last trial with one worker on this machine. hours: the remaining trials one after the
    other, if none is stopped early.
    """

    trials: list[Trial]
    num_over: int
    num_further: int
    num_final: int
    step_s: float
    evaluation_s: float
    hours: float

    def per_method(self) -> dict[str, int]:
        return dict(Counter(trial.setting.method for trial in self.trials))


def estimate_search(setup: Setup) -> SearchPlan:
    """Plans the search and trains its last trial for a few steps."""
    recipe, trials = setup.recipe, plan_search(setup)
    step_s, evaluation_s = _probe(trials[-1].recipe(recipe))
    num_further, num_final = num_of_finalists(recipe, trials), num_finals(recipe, trials)
    over = _names_over(recipe)
    left = [trial for trial in trials if trial.name not in over]
    num_over = len(trials) - len(left)
    finals_over = sum(name.startswith("final-") for name in over)
    finals_left = max(0, num_final - finals_over)
    further_left = max(0, num_further - (len(over) - finals_over - num_over))
    each = [_seconds(trial.recipe(recipe), step_s, evaluation_s) for trial in trials]
    seconds = finals_left * _seconds(recipe, step_s, evaluation_s) + further_left * sum(each) / len(each)
    seconds += sum(took for trial, took in zip(trials, each, strict=True) if trial.name not in over)
    return SearchPlan(trials, num_over, num_further, num_final, step_s, evaluation_s, seconds / 3600)


def _names_over(recipe: Recipe) -> set[str]:
    """The trials and final runs of this search that are over in the workspace; failed ones are run again."""
    place = Workspace.at(recipe.workspace).search(recipe.run) / "trials"
    outcomes = {name: TrialDirectory(place / name).outcome() for name in place.folders()}
    return {name for name, outcome in outcomes.items() if outcome and outcome["status"] != "failed"}


def num_finals(recipe: Recipe, trials: Iterable[Trial]) -> int:
    """Final runs after these trials."""
    settings = {astuple(trial.setting) for trial in trials}
    groups = {group_of(recipe.search.final.of, setting) for setting in settings}
    return recipe.search.final.seeds * len(groups)


def num_of_finalists(recipe: Recipe, trials: Iterable[Trial]) -> int:
    """Trials of finalists beyond their first, which come after these."""
    settings = {astuple(trial.setting) for trial in trials}
    groups = Counter(group_of(recipe.search.final.of, setting) for setting in settings)
    search = recipe.search
    return (search.seeds - search.first_seeds) * sum(min(count, search.finalists or 0) for count in groups.values())


def _seconds(recipe: Recipe, step_s: float, evaluation_s: float) -> float:
    evaluations, step = 0, 0
    while step < recipe.train.steps:
        step, evaluations = next_evaluation(step, recipe.train), evaluations + 1
    return recipe.train.steps * step_s + evaluations * evaluation_s


def _probe(recipe: Recipe) -> tuple[float, float]:
    """Seconds of a step and of an evaluation, after the first few steps. Samples that have no room in memory are streamed, as in
    the search."""
    short = {"steps": 3 * PROBE_STEPS, "evaluate_every": PROBE_STEPS, "num_workers": 1, "trackers": []}
    largest = max(teacher_subsets(recipe), key=len, default=())
    teachers = [teacher.model_dump(mode="json") for teacher in recipe.teachers if teacher.name in largest]
    changes = {f"train.{key}": value for key, value in short.items()} | {"train.warmup_steps": 0, "teachers": teachers}
    short_recipe = override(recipe, changes | {"search": {}})
    stores = open_setup(short_recipe).stores
    short_recipe = decide_streaming(short_recipe, stores)
    data = load_data(short_recipe, stores)
    seen: list[tuple[float, float]] = []

    def note(metrics: dict[str, Any], state: TrainingState) -> None:
        seen.append((time.perf_counter(), metrics["samples_per_s"]))

    with scratch() as folder:
        history = fit(short_recipe, data, directory=Workspace.at(folder), report=note, evaluate_test=False)
    (before, _), (after, samples_per_s) = seen[:2]
    rows = history[0]["epoch"] * len(data.train) / PROBE_STEPS
    step_s = rows / samples_per_s
    return step_s, max(0.0, after - before - PROBE_STEPS * step_s)
