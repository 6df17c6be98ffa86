"""A folder that can be called: `aft_ray.search` is the folder once anything in it is imported, and a verb all the time."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def can_be_called(name: str, place: str) -> None:
    """Makes the module `name` hand its calls on to the function MODULE:FUNCTION, imported when it is called."""
    where, _, function = place.partition(":")

    class CallableModule(ModuleType):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(where), function)(*arguments, **options)

    sys.modules[name].__class__ = CallableModule
