"""The parser of the command line and of each verb."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from aft_ray.recipe.printable import tell


class Parser(argparse.ArgumentParser):
    """Tells a fault of the arguments in one line, as all other faults, and takes a verb's list before and after options."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """argparse ends a list such as `key=value ...` at the first option after it; here it goes on behind the option."""
        parsed, unknown = super().parse_known_args(args, namespace)
        listed = [action.dest for action in self._actions if not action.option_strings and action.nargs == "*"]
        for dest in listed:
            more = [argument for argument in unknown if not argument.startswith("-")]
            setattr(parsed, dest, [*getattr(parsed, dest), *more])
            unknown = [argument for argument in unknown if argument.startswith("-")]
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        tell(f"{message[:1].upper()}{message[1:].replace(', key=value', '')}. See '{self.prog} --help'.")
        raise SystemExit(2)
