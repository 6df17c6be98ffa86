"""Errors that a command prints as one line: mistakes of the user, and failures of an object store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aft_ray.recipe.printable import printable
from aft_ray.recipe.secrets import redacted


class InputError(ValueError):
    """The user's input is wrong. `faults` has one line per fault; the command line prints them and exits with 2.

    Secrets in them become `***`, and control characters of a terminal are escaped.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [printable(redacted(fault)) for fault in ([faults] if isinstance(faults, str) else faults)]
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[str]]]:
        return InputError, (self.faults,)  # Ray carries it from a worker to the driver


class WorkerError(InputError):
    """An InputError that one of several workers has met and the others have not: the work has to be ended for all."""


def in_a_line(error: BaseException, *, last: bool = False) -> str:
    """The first line of an error's text, or the last, without its full stop; where there is no text, as in a MemoryError, its
    class."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if last else 0].rstrip(".")


def faults_of(*checks: Callable[[], object]) -> list[str]:
    """The faults that the checks raise as InputErrors, in order."""
    faults: list[str] = []
    for check in checks:
        try:
            check()
        except InputError as error:
            faults += error.faults
    return faults


class ClusterError(RuntimeError):
    """Ray did not start, did not let us in, or ended before its work. The text is one line."""


class ObjectStoreError(OSError):
    """An object store was out of reach or refused a request. Files there are whole: an upload is visible when complete."""
