"""Studies: one comparison of methods over many settings, which ends in one table and one figure.

`aft_ray.study("study.yaml")` runs one: see `aft_ray.commands.functions.verbs.study`.
"""

from aft_ray.recipe.callable_module import can_be_called

can_be_called(__name__, "aft_ray.commands.functions.verbs:study")
