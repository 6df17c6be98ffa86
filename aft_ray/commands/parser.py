"""The parser of the command line and of each verb."""

from __future__ import annotations

import argparse
from typing import NoReturn

from aft_ray.recipe.printable import tell


class Parser(argparse.ArgumentParser):
    """Tells a fault of the arguments in one line, as all other faults."""

    def error(self, message: str) -> NoReturn:
        tell(f"{message[:1].upper()}{message[1:].replace(', key=value', '')}. See '{self.prog} --help'.")
        raise SystemExit(2)
