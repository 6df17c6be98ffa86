"""Adaptive Feature Transfer (arXiv 2406.07337) on Ray.

    import aft_ray

    recipe = aft_ray.load("recipe.yaml", {"train.steps": 500})
    aft_ray.prepare(recipe)
    aft_ray.extract(recipe)
    aft_ray.search(recipe).table()
    student = aft_ray.load_student("work/pets/runs/main")

Names are imported when they are used: `import aft_ray` alone loads neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

PLACES = {
    **dict.fromkeys(("load", "prepare", "extract", "rank", "train", "evaluate"), "aft_ray.commands.functions.verbs"),
    "load_student": "aft_ray.export.student",
    "build_regularizer": "aft_ray.regularizers",
    "Recipe": "aft_ray.recipe.config",
}
"""The modules that the names of this package come from."""
FOLDERS = ("search", "export", "study")
"""Names that are folders too: these can be called."""
__all__ = ["__version__", *PLACES, *FOLDERS]


def __getattr__(name: str) -> Any:
    if name in FOLDERS:
        return importlib.import_module(f"aft_ray.{name}")
    if name not in PLACES:
        raise AttributeError(f"module 'aft_ray' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(PLACES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
