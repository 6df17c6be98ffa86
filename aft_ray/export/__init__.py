"""Trained students: load, export, evaluate, predict.

`aft_ray.export(recipe)` exports one: see `aft_ray.commands.functions.verbs.export`.
"""

from aft_ray.export.student import load_student
from aft_ray.recipe.callable_module import can_be_called

__all__ = ["load_student"]

can_be_called(__name__, "aft_ray.commands.functions.verbs:export")
