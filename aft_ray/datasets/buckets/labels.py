"""Labels in files of rows: a class is a code, several classes are a list of codes, numbers stay as they are.

The driver knows what the codes mean. There are no more of them where there are more rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.datasets.held_out import classes_of
from aft_ray.datasets.items import Coded, Label, tally
from aft_ray.datasets.sources.labels import Labels, flags_of
from aft_ray.recipe.task import Task

TYPES: dict[Task, pa.DataType] = {"multilabel": pa.list_(pa.int32()), "regression": pa.list_(pa.float64())}


def in_rows(labels: Labels, codes: np.ndarray) -> tuple[Labels, pa.Array]:
    """The parts of some labels, and a column of the labels of rows. codes: of the rows' labels."""
    parts = labels.in_parts()
    if labels.task == "classification":
        return parts, pa.array(codes, pa.int32())
    values: list[Any] = [*labels.values]
    if labels.task == "multilabel":
        values = [[parts.values[part] for part in ((None,) if value is None else value)] for value in values]
    return parts, pa.array(values, TYPES[labels.task]).take(pa.array(codes))


def recoded(column: pa.ChunkedArray, codes: np.ndarray) -> pa.Array:
    """A column whose codes are replaced by these."""
    found = column.combine_chunks()
    if pa.types.is_integer(found.type):
        return pa.array(codes[found.to_numpy()])
    if pa.types.is_integer(found.type.value_type):
        return pa.ListArray.from_arrays(found.offsets, pa.array(codes[found.values.to_numpy()]))
    return found


@dataclass(frozen=True)
class LabelRows:
    """How a column of labels is read. values: what the codes mean; of several classes a code is one of them."""

    task: Task
    values: tuple[Label, ...]
    num_classes: int

    def coded(self, column: pa.ChunkedArray) -> Coded:
        if self.task == "classification":
            return Coded(self.values, column.to_numpy())
        keys = [None if key is None else tuple(key) for key in column.to_pylist()]
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        return Coded(tuple(map(self._label, places)), np.array([places[key] for key in keys], np.int32))

    def _label(self, key: tuple[Any, ...] | None) -> Label:
        if key is None or self.task == "regression":
            return key
        found = [self.values[code] for code in key]
        return (
            None if None in found else flags_of((place for place in found if isinstance(place, int)), self.num_classes)
        )

    @cached_property
    def _classes(self) -> np.ndarray:
        return classes_of(Coded(self.values, np.array([], np.int32)))

    def classes(self, column: pa.ChunkedArray) -> np.ndarray:
        """As `classes_of` for each row: labels that are no single class have one number in common."""
        if self.task == "classification":
            return self._classes[column.to_numpy()]
        return np.zeros(len(column), np.int64)

    def counts(self, column: pa.ChunkedArray) -> np.ndarray:
        """Rows of each of the `classes`."""
        number = int(self._classes.max(initial=0)) + 1 if self.task == "classification" else 1
        return np.bincount(self.classes(column), minlength=number)

    def tally(self, column: pa.ChunkedArray) -> np.ndarray:
        return tally(self.coded(column), self.num_classes)
