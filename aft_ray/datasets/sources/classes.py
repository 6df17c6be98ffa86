"""Which class a label means: by its name or by its number, in the same way for all labels of a listing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from aft_ray.datasets.base import LISTED, Label, raise_faults
from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import SPLITS, UNLABELED

Key = int | str
"""A label as the data has it: a number or a boolean from a typed column, or a text."""

NUMERAL = re.compile(r"[+-]?\d{1,18}(\.\d*)?([eE][+-]?\d{1,2})?")
"""Digits of any script. Longer ones are names, such as account numbers."""
SHOWN = 60
"""Characters of a label in a message."""
CODE = re.compile(r"[0-9]+")
BOOLEANS = {"false": 0, "true": 1}
"""The number of each boolean; a text may have other capitals."""


def whole_number(label: Key) -> int | None:
    """The number that a label spells (`1`, `1.0`, `+1`, `1e0`, in full-width digits too), None if it is none."""
    if isinstance(label, int):
        return int(label)
    text = label.replace("\N{MINUS SIGN}", "-")
    if not NUMERAL.fullmatch(text):
        return None
    value = Decimal(text)
    return int(value) if value == value.to_integral_value() else None


def classes_of(places: Mapping[Key, str]) -> tuple[str, ...]:
    """Names of the classes in order: by number if all labels are whole numbers, else by name. places: where each stands.

    Raises InputError if a typed column has numbers where another has names, or if one class is spelled in two ways that
    cannot both be its name (`7` and `007`, or `1` and `1.0` among names).
    """
    numbers = {label: number for label in places if (number := whole_number(label)) is not None}
    if len(numbers) == len(places):
        codes = {label: _code(label, number) for label, number in numbers.items() if number != UNLABELED}
        _check_spellings(codes, places)
        return tuple(dict.fromkeys(codes[label] for label in sorted(codes, key=lambda label: numbers[label])))
    typed = next((label for label in places if isinstance(label, int)), None)
    if typed is not None:
        name = next(label for label in places if label not in numbers)
        raise InputError(
            f"Some labels are numbers, others names: {short(typed)} in {places[typed]}, {short(name)} in {places[name]}."
        )
    _check_spellings({label: str(label) for label in places}, places)
    return tuple(sorted(map(str, places)))


def _code(label: Key, number: int) -> str:
    """The class's name: digits alone stay as they are, so that 007 is 007."""
    return label if isinstance(label, str) and CODE.fullmatch(label) else str(number)


def _check_spellings(names: Mapping[Key, str], places: Mapping[Key, str]) -> None:
    """Raises InputError where labels that mean the same, as a number or as a text, would be classes of their own."""
    first: dict[Key, Key] = {}
    for label, name in names.items():
        number = whole_number(label)
        other = first.setdefault(unicodedata.normalize("NFC", name) if number is None else number, label)
        if names[other] != name:
            same = "are the same text in two encodings of its accents" if number is None else "are the same number"
            raise InputError(
                f"Labels {short(other)} in {places[other]} and {short(label)} in {places[label]} {same}. Spell them alike."
            )


@dataclass(frozen=True)
class Classes:
    """The classes of a listing, looked up all by name or all by number.

    A mixture would be ambiguous: where the names are 1 to 5, the number 1 can be the first class or the second.
    """

    names: tuple[str, ...]
    places: Mapping[Key, int]
    by_number: bool

    @classmethod
    def of(cls, names: tuple[str, ...], labels: Mapping[Key, str], *, numbered: bool = False) -> Classes:
        """numbered: the data's format says that numbers are places in `names`; else that is so if not all are names."""
        named: dict[Key, int] = {}
        for place, name in enumerate(names):
            named.setdefault(name, place)
            if (number := whole_number(name)) is not None:
                named.setdefault(number, place)
        for name in names:
            if name.lower() in BOOLEANS:
                for spelled in (name.title(), name.lower(), name.upper()):
                    named.setdefault(spelled, named[name])
        found = cls(names, named, False)
        numbers = [number for label in labels if (number := whole_number(label)) is not None]
        if numbered and any(isinstance(label, int) for label in labels):
            return cls(names, named, len(numbers) == len(labels))
        all_named = all(found._named(label) is not None or whole_number(label) == UNLABELED for label in labels)
        has_booleans = any(isinstance(label, bool) and str(label) in named for label in labels)
        return cls(names, named, not (all_named or has_booleans) and len(numbers) == len(labels))

    def place(self, label: Key) -> int:
        """The label's class, UNLABELED for -1. Raises ValueError if it is none."""
        named, number = self._named(label), whole_number(label)
        if not self.by_number and named is not None:
            return named
        if number == UNLABELED:
            return UNLABELED
        if self.by_number and number is not None:
            if 0 <= number < len(self.names):
                return number
            last = len(self.names) - 1
            raise ValueError(f"label {short(number)} is none of the {len(self.names)} classes, 0 to {last}")
        known = ", ".join(map(short_name, self.names)) if len(self.names) <= LISTED else f"{len(self.names)} names"
        raise ValueError(f"label {short(label)} is none of the classes: {known}")

    def _named(self, label: Key) -> int | None:
        if isinstance(label, bool) and str(label) in self.places:
            return self.places[str(label)]
        number = whole_number(label)
        return self.places.get(label, None if number is None else self.places.get(number))


def check_enough(classes: tuple[str, ...], columns: tuple[str, ...], least: int) -> None:
    """Raises InputError if the label columns name fewer than `least` classes or outputs."""
    told = ", ".join(columns)
    if columns and not classes:
        raise InputError(f"No sample has a label ({told}). If that is meant, set dataset.columns.label to [].")
    if columns and len(classes) < least:
        raise InputError(
            f"All labels ({told}) are {short(classes[0])}, a single class. Name all classes in dataset.label_names if"
            " that is meant."
        )


def short(value: object) -> str:
    """A value for a message: numbers as they are, others quoted."""
    return short_name(str(value) if isinstance(value, int) else repr(value))


def short_name(name: str) -> str:
    """A name for a message or a table: a label can have thousands of digits."""
    return name if len(name) <= SHOWN else f"{name[: SHOWN - 3]}..."


def check_classes_of_splits(labels_of: Mapping[int, set[int]], labels: Sequence[Label], classes: Sequence[str]) -> None:
    """Raises InputError naming the classes of a split that the train split has not. labels_of: by split, codes of `labels`."""
    found = {
        split: {label for code in labels_of.get(number, ()) if isinstance(label := labels[code], int) and label >= 0}
        for number, split in enumerate(SPLITS)
    }
    raise_faults(
        f"Split {split} has classes that train has not: {', '.join(short_name(classes[label]) for label in strange[:5])}"
        f"{', ...' if len(strange) > 5 else ''}. Name all classes in dataset.label_names if that is meant."
        for split in SPLITS
        if (strange := sorted(found[split] - found["train"]))
    )
