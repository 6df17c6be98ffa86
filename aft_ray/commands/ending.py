"""The last lines of a verb: the places of its results, and the next commands."""

from __future__ import annotations

import argparse
import shlex

from aft_ray.commands.tables import console

WIDTH = 10


def show_places(**places: object) -> None:
    """A line for each place, under its name."""
    for name, place in places.items():
        console.print(f"{name:{WIDTH}}{place}", soft_wrap=True, highlight=False)


def show_next(parsed: argparse.Namespace, *verbs: str, **changes: str) -> None:
    """Prints the next commands, with this command's recipe and overrides. changes: further overrides."""
    given = [text for text in parsed.overrides if text.partition("=")[0] not in changes]
    rest = shlex.join([*given, *(f"{key}={value}" for key, value in changes.items())])
    for number, verb in enumerate(verbs):
        name, _, more = verb.partition(" ")
        command = " ".join(filter(None, ["aft-ray", name, shlex.quote(parsed.recipe), more, rest]))
        show_places(**{"next" if number == 0 else "or": command})
