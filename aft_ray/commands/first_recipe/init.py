"""init: a recipe that runs as it is, for the data at a path and for this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aft_ray.commands.first_recipe.look import Found, look
from aft_ray.commands.first_recipe.machine import Machine
from aft_ray.commands.first_recipe.models import choose
from aft_ray.commands.first_recipe.write import METHODS, SEEDS, recipe_text
from aft_ray.recipe.config import Recipe, load_text
from aft_ray.recipe.places import place_at
from aft_ray.search.space import plan_trials, teacher_subsets


@dataclass(frozen=True)
class FirstRecipe:
    """text: the recipe with its comments. found: the data. cost: how long it takes, in a line."""

    text: str
    recipe: Recipe
    found: Found
    cost: str


def init(
    path: str,
    columns: Mapping[str, str],
    workspace: str | None = None,
    machine: Machine | None = None,
    task: str | None = None,
) -> FirstRecipe:
    """columns: names that the user gave, by key of `dataset.columns`. task: of a table or tars; guessed by default.

    Raises InputError with every fault of the data, or if no teacher is here.
    """
    found = look(path, columns, task)
    machine = machine or Machine.look()
    choice = choose(found, machine)
    place = workspace or f"work/{_name(path)}"
    recipe = load_text(recipe_text(found, choice, machine, place, ""))
    cost = _cost(recipe, found, machine)
    return FirstRecipe(recipe_text(found, choice, machine, place, cost), recipe, found, cost)


def _name(path: str) -> str:
    """A workspace's name, from the name of the data."""
    place = place_at(path)
    name = place.name or place.resolve().name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name.partition(".")[0]).strip("-") or "data"


def _cost(recipe: Recipe, found: Found, machine: Machine) -> str:
    trainings = len(plan_trials(recipe, teacher_subsets(recipe))) + SEEDS * len(METHODS) + 1
    if machine.has_hub:  # the models would have to be fetched
        return f"It trains {trainings} times. 'aft-ray plan FILE' fetches the teachers and says what extraction takes."
    from aft_ray.commands.first_recipe.cost import estimate

    return f"It takes, on this machine as busy as it is now: {estimate(recipe, found, trainings)}."
