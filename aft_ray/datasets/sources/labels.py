"""From the values of a label column to the labels of a listing; every fault names its row."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np

from aft_ray.datasets.base import LISTED, Label, Task, raise_faults
from aft_ray.datasets.items import Coded
from aft_ray.datasets.sources.classes import BOOLEANS, Classes, Key, check_enough, classes_of, short
from aft_ray.datasets.sources.json_text import is_unicode, parse_json
from aft_ray.store.schema import UNLABELED

LARGEST = float(np.finfo(np.float32).max)
"""Number that a label may be."""


def is_nothing(value: Any) -> bool:
    """Whether there is no label: null, or a blank field of a text file."""
    return value is None or (isinstance(value, str) and not value.strip())


@dataclass
class Labels:
    """Collects the labels of a listing row by row.

    columns: where they stand. names: the classes, if the recipe or the data names them. numbered: whether the data does, and
    has numbers in their place. of_parts: whether `values` are the parts of labels, as `in_parts` makes them.
    """

    task: Task
    columns: tuple[str, ...]
    names: tuple[str, ...]
    numbered: bool = False
    of_parts: bool = False
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
        return Labels(self.task, self.columns, self.names, self.numbered, self.of_parts)

    def in_parts(self) -> Labels:
        """As few values as show the classes and every fault: each class of several, the lengths of lists of numbers."""
        if self.of_parts or self.task == "classification":
            return self
        found: dict[Any, str] = {}
        for value, place in zip(self.values, self.places, strict=True):
            for part in PARTS[self.task](value):
                found.setdefault(part, place)
        parts = replace(self.without_rows(), of_parts=True, faults=self.faults, num_faults=self.num_faults)
        parts.values.update((part, code) for code, part in enumerate(found))
        parts.places += found.values()
        return parts

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
        parts = self.in_parts()
        names = self.names or (self.columns if len(self.columns) > 1 else ()) or parts._found_names()
        classes = Classes.of(names, parts._named(), numbered=self.numbered and bool(self.names))
        faults, found = [], list[Label]()
        for part, place in zip(parts.values, parts.places, strict=True):
            try:
                found.append(PART_FOUND[self.task](part, classes))
            except ValueError as error:
                faults.append(f"{place}: {error}.")
        raise_faults(faults)
        if parts is not self:
            found = [FOUND[self.task](value, classes) for value in self.values]
        return names, Coded(tuple(found), np.array(self.codes, np.int32))

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for the data check if classes are called by the numbers of booleans."""
        if self.names or self.task != "classification" or not any(isinstance(value, bool) for value in self.values):
            return ()
        return (
            f"The booleans of column {self.columns[0]} are the classes 0 (false) and 1 (true). With dataset.label_names:"
            " ['False', 'True'] they have their own names.",
        )

    def _found_names(self) -> tuple[str, ...]:
        """The classes, or the outputs, that the parts themselves show."""
        if self.task == "regression":
            names = tuple(map(str, range(next(filter(None, self.values), 0))))
        else:
            names = classes_of(self._named())
        check_enough(names, self.columns, 2 if self.task == "classification" else 1)
        return names

    def _named(self) -> dict[Key, str]:
        """Each class that a part names, and the first place where one does."""
        if self.task == "regression":
            return {}
        return {part: place for part, place in zip(self.values, self.places, strict=True) if part not in (None, ())}


def _class_key(value: Any) -> int | str | None:
    """A class by number or by name. Numbers that came as other types are numbers; a boolean is kept, and is a number too."""
    if is_nothing(value):
        return None
    if isinstance(value, str):
        if not is_unicode(value):
            raise ValueError(f"label {short(value)} is not Unicode")
        return value.strip()
    if isinstance(value, bool):
        return value
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
    except OverflowError:
        raise ValueError(f"label {short(value)} is too large for float32, in which labels are kept") from None
    except (TypeError, ValueError):
        hint = "; write 0.5, not 0,5" if isinstance(value, str) and "," in value else ""
        raise ValueError(f"label {short(value)} is not a number{hint}") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"label {short(value)} is not finite")
    return numbers


def _number(value: Any) -> float:
    if isinstance(value, str) and "_" in value:
        raise ValueError("Python alone reads 1_000 as a number")
    number = float(value) + 0.0  # -0.0 becomes 0.0: labels that are equal are kept once, and look alike in every file
    if LARGEST < abs(number) < math.inf:
        raise OverflowError
    return number


def _class_label(value: Any, classes: Classes) -> Label:
    return UNLABELED if value is None else classes.place(value)


def _classes_label(value: Any, classes: Classes) -> Label:
    if value is None:
        return None
    return flags_of(map(classes.place, value), len(classes.names))


def _part_label(value: Any, classes: Classes) -> Label:
    """One of several classes; () is none of them."""
    return UNLABELED if value == () else None if value is None else classes.place(value)


def _numbers_label(value: Any, classes: Classes) -> Label:
    return value


def _length(value: Any, classes: Classes) -> None:
    if value is not None and value != len(classes.names):
        raise ValueError(f"{value} numbers, the others have {len(classes.names)}")


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
PARTS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "multilabel": lambda value: value or (value,),
    "regression": lambda value: (None if value is None else len(value),),
}
PART_FOUND = {**FOUND, "multilabel": _part_label, "regression": _length}


def flags_of(classes: Iterable[int], count: int) -> tuple[float, ...]:
    """1 for these classes, 0 for the others. All flags are the same two objects: a float of its own takes 24 bytes."""
    flags = [0.0] * count
    for place in classes:
        if place != UNLABELED:
            flags[place] = 1.0
    return tuple(flags)


def flags_to_names(columns: Sequence[str], values: Sequence[Any]) -> list[str] | None:
    """Names of the 0/1 columns that hold 1; None if a column is empty. Raises ValueError for another value."""
    if any(map(is_nothing, values)):
        return None
    flags = [str(value).strip().lower() for value in values]
    wrong = [(column, value) for column, value, flag in zip(columns, values, flags, strict=True) if flag not in FLAGS]
    if wrong:
        raise ValueError(f"column {wrong[0][0]} holds {short(wrong[0][1])}, not 0 or 1")
    return [column for column, flag in zip(columns, flags, strict=True) if FLAGS[flag]]


FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, **BOOLEANS}
