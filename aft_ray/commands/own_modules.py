"""The user's own modules are found in the working directory, after all installed packages.

Python puts the directory of a script, or with `python -m` the working directory, before the standard library, and Ray does
the same in every worker: a `random.py` beside the recipe would replace Python's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from aft_ray.recipe.config import Recipe


def script_directory_last() -> None:
    """Moves the script's directory, such as `jobs/`, to the end of the import path."""
    script = os.path.dirname(os.path.abspath(sys.argv[0]))
    if sys.path[0] == script:
        sys.path.append(sys.path.pop(0))


def find_own_modules(recipe: Recipe) -> None:
    """Lets this process import from the working directory if the recipe names a class of the user's own."""
    if recipe.own_classes() and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def command_of_own() -> list[str]:
    """The start of a command line for `aft-ray` in a process of its own, with the import path of this process.

    `python -m` would look for its own first imports in the working directory, before any code of ours can mend its path.
    """
    start = f"import sys; sys.path[:] = {sys.path!r}; from aft_ray.cli import main; sys.exit(main())"
    return [sys.executable, "-c", start]


def ray_settings(recipe: Recipe | None) -> dict[str, Any]:
    """Arguments of `ray.init` that give workers the import path of this process."""
    from ray.job_config import JobConfig

    class InstalledModulesOnly(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            """Otherwise Ray puts the script's directory and the working directory first on every worker's path."""
            return True

    settings: dict[str, Any] = {"job_config": InstalledModulesOnly()}
    if recipe is not None and recipe.own_classes():
        settings["runtime_env"] = {"worker_process_setup_hook": _finder(os.getcwd())}
    return settings


def _finder(directory: str) -> Callable[[], None]:
    """A function for the start of every worker. It is nested, so that it travels by value and needs no import."""

    def find_own_modules_here() -> None:
        import sys

        sys.path.append(directory)

    return find_own_modules_here
