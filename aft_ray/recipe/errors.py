"""The one error for what a user can cause."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """What the user gave is wrong. `faults` has one line per fault; the command line prints them and exits with 2."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[str]]]:
        return InputError, (self.faults,)  # Ray carries it from a worker to the driver
