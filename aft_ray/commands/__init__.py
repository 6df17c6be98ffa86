"""The verbs of the command line, one file each: SUMMARY, add_arguments(parser), run(parsed) and its tables.

A module of this folder with a SUMMARY is a verb; nothing else lists them. SECTIONS names the sections of the recipe that it
reads. `run` does its own imports, so that `--help` does not wait for torch.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from types import ModuleType

from aft_ray.commands.parser import Parser

IN_HELP = (
    "demo",
    "init",
    "pipeline",
    "prepare",
    "plan",
    "extract",
    "rank",
    "search",
    "train",
    "evaluate",
    "export",
    "predict",
)
"""The order of `--help`: a user's first hour. Other verbs follow by name."""


def verbs() -> dict[str, ModuleType]:
    """Every verb and its module."""
    modules = {
        found.name: importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    }
    names = [name for name, module in modules.items() if hasattr(module, "SUMMARY")]
    return {name: modules[name] for name in dict.fromkeys((*IN_HELP, *sorted(names)))}


def recipe_verbs() -> tuple[str, ...]:
    """The verbs that work on a recipe or a study: each can run as a job of a cluster, and has a script in `jobs/`."""
    return tuple(name for name, module in verbs().items() if takes_recipe(module) and name != "submit")


def takes_recipe(module: ModuleType) -> bool:
    return any(action.dest in ("recipe", "study") for action in parser_of(module)._actions)


def parser_of(module: ModuleType) -> argparse.ArgumentParser:
    """A parser of this verb's arguments alone."""
    name = module.__name__.rpartition(".")[2]
    parser = Parser(prog=f"aft-ray {name}", description=module.SUMMARY, epilog=epilog(module))
    module.add_arguments(parser)
    return parser


def epilog(module: ModuleType) -> str | None:
    """The sections of a recipe that the verb reads, for its help."""
    sections = getattr(module, "SECTIONS", ())
    if not sections:
        return None
    several = "the sections " if len(sections) > 1 else "the section "
    return f"Reads {several}{', '.join(sections)} of the recipe; 'aft-ray keys SECTION' explains their keys."
