"""Functions of a sample's place that travel to other processes: the content of sample 5, its URL."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa


class Lookup:
    """A function of a sample's place that travels to other processes, whole or for some samples.

    make: turns a table of references into the function.
    """

    def __init__(self, make: Callable[[pa.Table], Callable[[int], Any]], references: pa.Table) -> None:
        self.make, self.references = make, references

    @cached_property
    def function(self) -> Callable[[int], Any]:
        return self.make(self.references)

    def __call__(self, index: int) -> Any:
        return self.function(index)

    def take(self, places: np.ndarray) -> Lookup:
        return Lookup(self.make, self.references.take(pa.array(places)))

    def __reduce__(self) -> tuple[type[Lookup], tuple[Any, ...]]:
        return Lookup, (self.make, self.references)
