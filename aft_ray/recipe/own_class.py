"""Classes of the user's own, which a recipe names as `module:Class`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence

from aft_ray.recipe.errors import InputError


def import_class(name: str, key: str, methods: Sequence[str] = ()) -> type:
    """The class that a recipe's `key` names.

    Raises InputError if its module cannot be imported, or it is not a class with `methods`.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module may raise anything
        raise InputError(f"{key}: {name} cannot be imported: {type(error).__name__}: {error}.") from error
    if not inspect.isclass(found):
        raise InputError(f"{key}: {name} must be a class, got a {type(found).__name__}.")
    if lacking := [method for method in methods if not callable(getattr(found, method, None))]:
        raise InputError(f"{key}: class {name} lacks {', '.join(lacking)}.")
    return found
