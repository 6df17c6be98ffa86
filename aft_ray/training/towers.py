"""Which tower of a student its teachers are compared with, where the student has a tower of images and one of texts.

With teachers for both towers, the regularizer gets the features of both and multiplies them. With teachers for one tower, it
compares this tower with them as it would a student that has no other, and the other tower learns from the task loss alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aft_ray.models.students import modality
from aft_ray.recipe.sections import StudentConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Towers:
    """only: the number of the one tower that a regularizer reads; None for all features that the student has.

    of_teachers: the number of each teacher's tower, where there are teachers of both.
    """

    only: int | None = None
    of_teachers: tuple[int, ...] | None = None

    def read(self, values: T | tuple[T, ...]) -> T | tuple[T, ...]:
        """The student's features that the regularizer reads, or their widths."""
        if self.only is None:
            return values
        assert isinstance(values, tuple), "a student with one tower has nothing to choose from"
        return values[self.only]

    def most_teachers(self, num_teachers: int) -> int:
        """How many of `num_teachers` teachers are side by side, at most."""
        return max(Counter(self.of_teachers).values()) if self.of_teachers else num_teachers


def towers_of(student: StudentConfig, teachers: Sequence[str], modalities: Mapping[str, str]) -> Towers:
    """teachers: names of the teachers that the regularizer reads. modalities: each teacher's input, `image` or `text`."""
    columns = modality(student).split("+")
    if len(columns) == 1:
        return Towers()
    found = tuple(columns.index(modalities[name]) for name in teachers)
    if len(set(found)) < 2:
        return Towers(only=found[0] if found else 0)
    return Towers(of_teachers=found)
