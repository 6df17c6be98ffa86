"""Imports the adapter of a library, without the tracker that timm imports where it is installed.

timm looks for Weights & Biases only for its own training scripts. The import takes a tenth of timm's, and leaves two temporary
directories of every process that Ray ends.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

TRACKER = "wandb"


def import_adapter(name: str) -> ModuleType:
    """The module of this package that imports a library."""
    with hidden(TRACKER):
        return importlib.import_module(name)


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """Inside, the module is as if it were not installed, unless it has been imported: a library that has a use of its own for it,
    and not ours, does without."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's way to stop an import
    try:
        yield
    finally:
        del sys.modules[module]
