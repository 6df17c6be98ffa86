"""The columns that a listing keeps of its samples give the samples back as they were, in a tenth of the memory."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import pytest

from aft_ray.datasets.base import Item, Listing
from aft_ray.datasets.items import CHUNK, Items
from aft_ray.datasets.samples import check_ids
from aft_ray.recipe.errors import InputError


def some_items(count: int) -> tuple[Item, ...]:
    drawn = random.Random(0)
    labels = (0, 1, -1, None, (1.0, 0.0), (1, 0), True)
    return tuple(
        Item(
            f"sample-{number:012d}",
            drawn.choice(labels),
            drawn.choice((None, 0, 1 << 40)),
            drawn.choice((None, "train", "validation", "test")),
            drawn.choice((None, "a", "b")),
        )
        for number in range(count)
    )


def test_columns_give_every_sample_back() -> None:
    items = some_items(1000)
    found = Items.of(items)
    assert [*map(repr, found)] == [*map(repr, items)]  # 1, 1.0 and True are equal, and are not the same label
    assert found == items and found != items[1:] and found[-1] == items[-1] and found[10:12] == items[10:12]
    some = np.array([7, 3, 999])
    assert found.take(some) == [items[place] for place in some]
    with pytest.raises(IndexError):
        found[1000]
    assert Items.of(()) == () and Items.of(found) is found


def test_a_sample_takes_tens_of_bytes() -> None:
    items = Items.of(some_items(CHUNK + 5))
    columns: list[Any] = [items.labels.codes, items.sizes, items.splits, items.ids, items.groups]
    assert sum(column.nbytes for column in columns) < 50 * len(items)
    assert sys.getsizeof(Item("a", 0)) + sys.getsizeof("sample-000000000000") > 100


def test_an_id_that_is_no_unicode_and_a_split_that_is_none_are_told() -> None:
    def listing(*items: Item) -> Listing:
        return Listing("text", ("a",), items, lambda index: "x")

    with pytest.raises(InputError, match=r"The name of 'a\\udcff' is not Unicode; rename the file"):
        check_ids(listing(Item("b", 0), Item("a\udcff", 0)))
    with pytest.raises(InputError, match="split must be train, validation, test or None, not 'dev'"):
        check_ids(listing(Item("b", 0, None, "dev")))
    with pytest.raises(InputError, match=r"ids must differ: 'b' \(3 times\), 'c' \(2 times\)\."):
        check_ids(listing(*(Item(name, 0) for name in "bcbacb")))
