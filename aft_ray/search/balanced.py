"""Draws that favour no value: a Latin hypercube (McKay, Beckman and Conover 1979), the most even of many.

With few settings a method's luck decides: of 8 independent draws from four strengths and two lengths of training, one method had
the short training 8 times. Here every value of a key appears equally often, and pairs of values as evenly as can be found.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence

DESIGNS = 300
"""Designs to choose from; each costs a shuffle of every column."""
PARTS = 4
"""Of a range, for counting pairs."""

Column = list[tuple[int, float]]
"""For each draw: the place in a list of values, or the part of a range, and how far into the range, 0 to 1."""


def balanced_columns(sizes: Mapping[str, int | None], count: int, source: random.Random) -> dict[str, Column]:
    """A column of `count` draws for every key. sizes: the number of values of each, None for a range.

    As few rows as possible are equal; among such designs, pairs of values of any two keys appear as equally often as possible.
    """
    designs = ({key: _column(size, count, source) for key, size in sizes.items()} for _ in range(DESIGNS))
    return min(designs, key=_unevenness)


def _column(size: int | None, count: int, source: random.Random) -> Column:
    if size is None:
        parts = [(number + source.random()) / count for number in range(count)]
        column = [(int(PARTS * part), part) for part in parts]
    else:
        order = source.sample(range(size), size)  # where there are more values than draws, any may be left out
        column = [(order[number % size], 0.0) for number in range(count)]
    source.shuffle(column)
    return column


def _unevenness(design: Mapping[str, Column]) -> tuple[int, int]:
    columns: Sequence[Column] = list(design.values())
    equal = len(columns[0]) - len(set(zip(*columns, strict=True)))
    pairs = (
        Counter((x[0], y[0]) for x, y in zip(one, other, strict=True))
        for one, other in itertools.combinations(columns, 2)
    )
    return equal, sum(times * times for counts in pairs for times in counts.values())
