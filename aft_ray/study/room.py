"""How many settings of a study run side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aft_ray.recipe.config import Recipe
from aft_ray.search.estimate import num_finals
from aft_ray.search.shared import needed
from aft_ray.search.space import plan_trials, teacher_subsets, top_by_rank
from aft_ray.study.config import Study

MOST = 8
"""Each setting has a process of its own, and its samples in memory."""


def at_once(study: Study, names: Sequence[str], nodes: Sequence[Mapping[str, float]]) -> int:
    """As many settings as keep the nodes busy in final runs, the narrowest stage of a setting: one on a small machine. Where
    stages of several settings together have no room, their trials wait for each other."""
    recipes = [study.settings[name] for name in names]
    slots = min((_slots(recipe, nodes) for recipe in recipes), default=1)
    widest = max((_final_runs(recipe) for recipe in recipes), default=1)
    return max(1, min(slots // max(1, widest), MOST, len(names)))


def _slots(recipe: Recipe, nodes: Sequence[Mapping[str, float]]) -> int:
    """Trials that the nodes have room for."""
    return min(int(sum(node.get(kind, 0.0) for node in nodes) / count + 1e-9) for kind, count in needed(recipe).items())


def _final_runs(recipe: Recipe) -> int:
    """Final runs of a setting that may run at the same time."""
    trials = plan_trials(recipe, teacher_subsets(recipe)[: top_by_rank(recipe)])
    finals = num_finals(recipe, trials)
    return min(finals, recipe.search.max_concurrent_trials or finals)
