"""From the values of a label column to the labels of a listing; every fault names its row."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from aft_ray.datasets.base import LISTED, Label, Task, raise_faults
from aft_ray.datasets.items import Coded
from aft_ray.datasets.sources.classes import Classes, Key, check_enough, classes_of, short
from aft_ray.datasets.sources.json_text import is_unicode, parse_json
from aft_ray.store.schema import UNLABELED


def is_nothing(value: Any) -> bool:
    """Whether there is no label: null, or a blank field of a text file."""
    return value is None or (isinstance(value, str) and not value.strip())


@dataclass
class Labels:
    """Collects the labels of a listing row by row.

    columns: where they stand. names: the classes, if the recipe or the data names them. numbered: whether the data does, and
    has numbers in their place.
    """

    task: Task
    columns: tuple[str, ...]
    names: tuple[str, ...]
    numbered: bool = False
    codes: array[int] = field(default_factory=lambda: array("i"))
    values: dict[Any, int] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    num_faults: int = 0

    def add(self, values: Sequence[Any], where: Callable[[], str]) -> None:
        """The label of the next row, as its columns hold it. Equal labels are kept once. where: names the row."""
        try:
            key = self._key(values)
        except ValueError as error:
            self.num_faults += 1
            if len(self.faults) < LISTED:
                self.faults.append(f"{where()}: {error}.")
            key = None
        code = self.values.setdefault(key, len(self.values))
        if code == len(self.places):
            self.places.append(where())
        self.codes.append(code)

    def _key(self, values: Sequence[Any]) -> Any:
        if not values:
            return None
        if len(self.columns) == 1:
            return KEYS[self.task](values[0])
        return KEYS[self.task](flags_to_names(self.columns, values) if self.task == "multilabel" else values)

    def without_rows(self) -> Labels:
        return Labels(self.task, self.columns, self.names, self.numbered)

    def join(self, other: Labels) -> np.ndarray:
        """Adds the different labels of rows that follow, and returns the code of each of them here."""
        self.faults += other.faults[: LISTED - len(self.faults)]
        self.num_faults += other.num_faults
        codes = [self.values.setdefault(value, len(self.values)) for value in other.values]
        self.places += [place for code, place in zip(codes, other.places, strict=True) if code >= len(self.places)]
        return np.array(codes, np.int32)

    def finish(self) -> tuple[tuple[str, ...], Coded]:
        """Classes, and the label of every row. Raises InputError, one line per fault, naming rows."""
        raise_faults(self.faults, self.num_faults)
        names = self.names or (self.columns if len(self.columns) > 1 else ()) or self._found_names()
        classes = Classes.of(names, self._parts(), numbered=self.numbered and bool(self.names))
        faults, found = [], []
        for value, place in zip(self.values, self.places, strict=True):
            try:
                found.append(FOUND[self.task](value, classes))
            except ValueError as error:
                faults.append(f"{place}: {error}.")
                found.append(None)
        raise_faults(faults)
        return names, Coded(tuple(found), np.array(self.codes, np.int32))

    def _found_names(self) -> tuple[str, ...]:
        """The classes, or the outputs, that the labels themselves show."""
        if self.task == "regression":
            names = tuple(map(str, range(len(next(filter(None, self.values), ())))))
        else:
            names = classes_of(self._parts())
        check_enough(names, self.columns, 2 if self.task == "classification" else 1)
        return names

    def _parts(self) -> dict[Key, str]:
        """Each class that a label names, and the first place where one does."""
        found: dict[Key, str] = {}
        if self.task != "regression":
            for value, place in zip(self.values, self.places, strict=True):
                for part in value if isinstance(value, tuple) else () if value is None else (value,):
                    found.setdefault(part, place)
        return found


def _class_key(value: Any) -> int | str | None:
    """A class by number or by name; numbers that came as other types are numbers."""
    if is_nothing(value):
        return None
    if isinstance(value, str):
        if not is_unicode(value):
            raise ValueError(f"label {short(value)} is not Unicode")
        return value.strip()
    if isinstance(value, (float, Decimal)) and math.isnan(value):
        return None  # how pandas writes a missing integer
    if isinstance(value, int) or (isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value)):
        return int(value)
    raise ValueError(f"label {short(value)} is of type {type(value).__name__}, not the name or number of a class")


def _classes_key(value: Any) -> tuple[Any, ...] | None:
    """A list of classes; a text file has it as JSON or with semicolons between."""
    if value is None:
        return None
    if isinstance(value, str):
        value = parse_json(value) if value.lstrip().startswith("[") else [part for part in value.split(";") if part]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"label {short(value)} is of type {type(value).__name__}, not a list of classes")
    keys = {_class_key(part) for part in value} - {None}
    return tuple(sorted(keys, key=lambda key: (isinstance(key, str), key)))


def _numbers_key(value: Any) -> tuple[float, ...] | None:
    """Finite numbers; a sample that lacks one has no label."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if any(map(is_nothing, values)):
        return None
    try:
        numbers = tuple(map(_number, values))
    except (TypeError, ValueError):
        raise ValueError(f"label {short(value)} is not a number") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"label {short(value)} is not finite")
    return numbers


def _number(value: Any) -> float:
    if isinstance(value, str) and "_" in value:
        raise ValueError("Python alone reads 1_000 as a number")
    return float(value)


def _class_label(value: Any, classes: Classes) -> Label:
    return UNLABELED if value is None else classes.place(value)


def _classes_label(value: Any, classes: Classes) -> Label:
    if value is None:
        return None
    chosen = {classes.place(part) for part in value}
    return tuple(float(place in chosen) for place in range(len(classes.names)))


def _numbers_label(value: Any, classes: Classes) -> Label:
    if value is not None and len(value) != len(classes.names):
        raise ValueError(f"{len(value)} numbers, the others have {len(classes.names)}")
    return value


KEYS: dict[str, Callable[[Any], Any]] = {
    "classification": _class_key,
    "multilabel": _classes_key,
    "regression": _numbers_key,
}
FOUND: dict[str, Callable[[Any, Classes], Label]] = {
    "classification": _class_label,
    "multilabel": _classes_label,
    "regression": _numbers_label,
}


def flags_to_names(columns: Sequence[str], values: Sequence[Any]) -> list[str] | None:
    """Names of the 0/1 columns that hold 1; None if a column is empty. Raises ValueError for another value."""
    if any(map(is_nothing, values)):
        return None
    flags = [str(value).strip() for value in values]
    wrong = [(column, value) for column, value, flag in zip(columns, values, flags, strict=True) if flag not in FLAGS]
    if wrong:
        raise ValueError(f"column {wrong[0][0]} holds {short(wrong[0][1])}, not 0 or 1")
    return [column for column, flag in zip(columns, flags, strict=True) if FLAGS[flag]]


FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True, "false": False, "true": True}
