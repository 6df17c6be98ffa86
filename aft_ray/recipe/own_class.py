"""Classes of the user's own, which a recipe names as `module:Class`."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.model import is_own_class


def import_class(name: str, key: str, methods: Sequence[str] = ()) -> type:
    """The class that a recipe's `key` names.

    Raises InputError if its module cannot be imported, or it is not a class with `methods`.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module may raise anything
        raise InputError(f"{key}: {name} cannot be imported: {type(error).__name__}: {error}.") from error
    if not inspect.isclass(found):
        raise InputError(f"{key}: {name} must be a class, got a {type(found).__name__}.")
    if lacking := [method for method in methods if not callable(getattr(found, method, None))]:
        raise InputError(f"{key}: class {name} lacks {', '.join(lacking)}.")
    return found


@contextmanager
def own_faults(name: str, key: str) -> Iterator[None]:
    """Turns an exception out of the user's class `name` into an InputError that names the user's file and line.

    key: what the line begins with. Errors of any other code pass as they are, and so does a lack of memory.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        line = _own_line(error, name)
        is_torch_out_of_memory = type(error).__name__ == "OutOfMemoryError"  # a smaller batch may be tried
        if line is None or is_torch_out_of_memory:
            raise
        reason = " ".join(str(error).split()) or "no message"
        raise InputError(f"{key}: {name} raised {type(error).__name__} ({line}): {reason}") from error


def _own_line(error: BaseException | None, name: str) -> str | None:
    """The last line of the class's own file that an exception, or what caused it, went through."""
    file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None) if is_own_class(name) else None
    while file and error is not None:
        numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        if numbers:
            return f"{file}, line {numbers[-1]}"
        error = error.__cause__ or error.__context__
    return None
