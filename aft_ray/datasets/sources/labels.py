"""From what a label column holds to the labels of a listing, with every fault named by its row."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aft_ray.datasets.base import LISTED, Label, Task, raise_faults
from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import UNLABELED

WHOLE_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
"""A number of a class as text files spell it: `3`, `3.0`."""


def is_nothing(value: Any) -> bool:
    """Whether there is no label: null, or a blank field of a text file."""
    return value is None or (isinstance(value, str) and not value.strip())


@dataclass
class Labels:
    """Collects the labels of a listing row by row.

    columns: that hold them. names: the classes, where they are known before.
    """

    task: Task
    columns: tuple[str, ...]
    names: tuple[str, ...]
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

    def finish(self) -> tuple[tuple[str, ...], list[Label]]:
        """Classes, and the label of every row. Raises InputError, one line per fault, naming rows."""
        raise_faults(self.faults, self.num_faults)
        classes = (
            self.names
            or (self.columns if len(self.columns) > 1 else ())
            or CLASSES[self.task](self.values, self.places)
        )
        number = {name: index for index, name in enumerate(classes)}
        faults, found = [], []
        for value, place in zip(self.values, self.places, strict=True):
            try:
                found.append(FOUND[self.task](value, number))
            except ValueError as error:
                faults.append(f"{place}: {error}.")
                found.append(None)
        raise_faults(faults)
        return classes, [found[code] for code in self.codes]


def _class_key(value: Any) -> int | str | None:
    """A class by number or by name; numbers that came as other types are numbers."""
    if is_nothing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, float) and math.isnan(value):
        return None  # how pandas writes a missing integer
    if isinstance(value, (int, str)):
        return _spelled(value.strip()) if isinstance(value, str) else int(value)
    raise ValueError(f"label {_short(value)} is a {type(value).__name__}, not the name or number of a class")


def _spelled(text: str) -> str:
    """`text`; a whole number without its sign + and its decimals, so that `1.0` of one file is the `1` of another."""
    number = WHOLE_NUMBER.fullmatch(text)
    return number[1].removeprefix("+") if number else text


def _classes_key(value: Any) -> tuple[Any, ...] | None:
    """Several classes, as a list; in a CSV as JSON or with semicolons between."""
    if value is None:
        return None
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else [part for part in value.split(";") if part]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"label {_short(value)} is a {type(value).__name__}, not a list of classes")
    keys = {_class_key(part) for part in value} - {None}
    return tuple(sorted(keys, key=lambda key: (isinstance(key, str), key)))


def _numbers_key(value: Any) -> tuple[float, ...] | None:
    """Finite numbers; a sample that lacks one has no label."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if any(map(is_nothing, values)):
        return None
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        raise ValueError(f"label {_short(value)} is not a number") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"label {_short(value)} is not finite")
    return numbers


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _classes_of(values: Iterable[Any], places: Sequence[str]) -> tuple[str, ...]:
    """The different labels in order. Raises InputError where some are numbers, others names."""
    first: dict[Any, str] = {}
    for value, place in zip(values, places, strict=True):
        for part in value if isinstance(value, tuple) else (value,):
            if part is not None:
                first.setdefault(part, place)
    kinds: dict[type, Any] = {}
    for part in first:
        kinds.setdefault(type(part), part)
    if len(kinds) > 1:
        raise InputError(
            f"Some labels are numbers, others names: {_short(kinds[int])} in {first[kinds[int]]},"
            f" {_short(kinds[str])} in {first[kinds[str]]}."
        )
    if all(_is_number(part) for part in first):
        _check_spellings(first)
        return tuple(str(part) for part in sorted(first, key=int) if int(part) != UNLABELED)
    return tuple(sorted(first))


def _is_number(part: int | str) -> bool:
    return isinstance(part, int) or WHOLE_NUMBER.fullmatch(part) is not None


def _check_spellings(first: dict[Any, str]) -> None:
    """Raises InputError where two labels are one number, such as 7 and 007. first: where each label stands."""
    spelled: dict[int, Any] = {}
    for part in first:
        other = spelled.setdefault(int(part), part)
        if other != part:
            raise InputError(
                f"Labels {_short(other)} in {first[other]} and {_short(part)} in {first[part]} are the same number. Spell"
                " them alike."
            )


def _number_of(value: Any, number: dict[str, int]) -> int:
    if str(value) in number:
        return number[str(value)]
    if _is_number(value):
        if int(value) == UNLABELED:
            return UNLABELED
        if 0 <= int(value) < len(number):
            return int(value)
        raise ValueError(f"label {value} is none of the {len(number)} classes, 0 to {len(number) - 1}")
    known = ", ".join(number) if len(number) <= LISTED else f"{len(number)} names"
    raise ValueError(f"label {_short(value)} is none of the classes: {known}")


def _class_label(value: Any, number: dict[str, int]) -> Label:
    return UNLABELED if value is None else _number_of(value, number)


def _classes_label(value: Any, number: dict[str, int]) -> Label:
    if value is None:
        return None
    chosen = {_number_of(part, number) for part in value}
    return tuple(float(index in chosen) for index in range(len(number)))


def _numbers_label(value: Any, number: dict[str, int]) -> Label:
    if value is not None and len(value) != len(number):
        raise ValueError(f"{len(value)} numbers, the others have {len(number)}")
    return value


def _outputs_of(values: Iterable[Any], places: Sequence[str]) -> tuple[str, ...]:
    """Names of the numbers of a list, where no columns name them."""
    width = len(next((value for value in values if value is not None), ()))
    return tuple(str(index) for index in range(width))


KEYS: dict[str, Callable[[Any], Any]] = {
    "classification": _class_key,
    "multilabel": _classes_key,
    "regression": _numbers_key,
}
CLASSES = {"classification": _classes_of, "multilabel": _classes_of, "regression": _outputs_of}
FOUND: dict[str, Callable[[Any, dict[str, int]], Label]] = {
    "classification": _class_label,
    "multilabel": _classes_label,
    "regression": _numbers_label,
}


def flags_to_names(columns: Sequence[str], values: Sequence[Any]) -> list[str] | None:
    """The columns of 0/1 values that hold 1; None if one holds nothing. Raises ValueError for another value."""
    if any(map(is_nothing, values)):
        return None
    flags = [str(value).strip() for value in values]
    wrong = [(column, value) for column, value, flag in zip(columns, values, flags, strict=True) if flag not in FLAGS]
    if wrong:
        raise ValueError(f"column {wrong[0][0]} holds {_short(wrong[0][1])}, not 0 or 1")
    return [column for column, flag in zip(columns, flags, strict=True) if FLAGS[flag]]


FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True, "false": False, "true": True}
