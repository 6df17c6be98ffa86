"""Imports the adapter of a library, without what the library imports and has no use for.

timm looks for Weights & Biases, for its own training scripts only: a tenth of its import, and two temporary directories that stay
of every process that Ray ends. timm and torchvision import torch's compiler, to hide a few functions from it: half of the import.
"""

from __future__ import annotations

import functools
import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

TRACKER = "wandb"
COMPILER, ASKED = "torch._dynamo.utils", "is_compile_supported"
"""What torchvision imports for its pooling of regions, and the function that it wants of it."""


def import_adapter(name: str) -> ModuleType:
    """The module of this package that imports a library."""
    with hidden(TRACKER), compiler_later(), no_collection():
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


@contextmanager
def compiler_later() -> Iterator[None]:
    """Inside, what is hidden from torch's compiler does not import it; the first compilation does. Whoever imports the compiler
    gets it."""
    import torch.compiler

    if COMPILER in sys.modules:
        yield
        return

    def imported(name: str) -> Any:
        if name.startswith("__"):  # of a module itself, which whoever looks through all modules asks for
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is later:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)

    later = ModuleType(COMPILER)
    vars(later).update({"__getattr__": imported, ASKED: lambda device: imported(ASKED)(device)})
    sys.modules[COMPILER] = later
    disable, torch.compiler.disable = torch.compiler.disable, disabled_later
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(COMPILER) is later:
            del sys.modules[COMPILER]


def disabled_later(fn: Callable[..., Any] | None = None, *options: Any, **named: Any) -> Callable[..., Any]:
    """As `torch.compiler.disable`, which it asks when something is compiled."""
    import torch.compiler

    if fn is None:
        return lambda given: disabled_later(given, *options, **named)

    @functools.wraps(fn)
    def called(*args: Any, **kwargs: Any) -> Any:
        own = torch.compiler.disable(fn, *options, **named) if COMPILER in sys.modules else fn
        return own(*args, **kwargs)

    return called


@contextmanager
def no_collection() -> Iterator[None]:
    """Inside, no garbage is collected: an import makes a million objects and leaves next to none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
