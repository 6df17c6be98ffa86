"""Completion of verbs, options and keys in the shell: `eval "$(register-python-argcomplete aft-ray)"`, from argcomplete."""

from __future__ import annotations

import argparse
from collections.abc import Iterable


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell and ends the process."""
    import argcomplete

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _complete_keys(verb)
    argcomplete.autocomplete(parser)


def _complete_keys(verb: argparse.ArgumentParser) -> None:
    for action in verb._actions:
        if action.dest in ("overrides", "key"):
            action.completer = keys_beginning if action.dest == "key" else overrides_beginning  # type: ignore[attr-defined]


def keys_beginning(prefix: str, **options: object) -> Iterable[str]:
    from aft_ray.recipe.reference import recipe_keys

    return [key.name for key in recipe_keys() if key.name.startswith(prefix)]


def overrides_beginning(prefix: str, **options: object) -> Iterable[str]:
    """Keys that hold a value, as `train.steps=`."""
    from aft_ray.recipe.reference import recipe_keys

    plain = (
        key.name for key in recipe_keys() if not key.is_section and "[]" not in key.name and "NAME" not in key.name
    )
    return [f"{name}=" for name in plain if name.startswith(prefix)]
