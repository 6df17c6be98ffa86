from __future__ import annotations

import pytest

from aft_ray.recipe.errors import InputError
from aft_ray.store.prefetch import attempted, prefetched


def test_prefetching_keeps_the_order_stays_few_ahead_and_brings_faults_to_the_user() -> None:
    made: list[int] = []

    def make(index: int) -> int:
        if index == 7:
            raise InputError("the seventh")
        made.append(index)
        return index * index

    batches = prefetched(make, range(10), threads=2)
    assert next(batches) == 0 and max(made) <= 4
    assert [next(batches) for _ in range(6)] == [1, 4, 9, 16, 25, 36]
    with pytest.raises(InputError, match="the seventh"):
        next(batches)
    assert list(prefetched(make, [])) == []


@pytest.mark.parametrize("threads", [0, 3])
def test_work_that_fails_raises_where_its_result_is_asked_for(threads: int) -> None:
    results = [*attempted(lambda number: 12 // number, [3, 0, 4], threads=threads)]
    assert (results[0](), results[2]()) == (4, 3)
    with pytest.raises(ZeroDivisionError):
        results[1]()
