"""Search on Ray Tune: beta, combinations of teachers and any other key, over one set of features.

`aft_ray.search(recipe)` runs one: see `aft_ray.commands.functions.verbs.search`.
"""

from aft_ray.recipe.callable_module import can_be_called

can_be_called(__name__, "aft_ray.commands.functions.verbs:search")
