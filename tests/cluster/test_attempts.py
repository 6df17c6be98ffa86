"""Which samples are quarantined when processes end; test_extract_faults tests real processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pytest

from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.recipe.errors import InputError

IDS = [f"s{row}" for row in range(9)]
SHARD = "shard 3 of train"


class Died(BaseException):
    """In place of the end of a process."""


def finish(work: Callable[[Sequence[int]], None], allowed: int = 2, attempts: AttemptsHere | None = None) -> list[str]:
    """Begins a shard of nine samples until it is done. Returns the quarantined rows."""
    watch = Watch(attempts or AttemptsHere(), "decoding", allowed)
    while True:
        quarantined: dict[int, dict[str, str]] = {}
        try:
            left_out = watch.begin(SHARD, IDS, quarantined, lambda row: work([] if row is None else [row]))
            work([row for row in range(len(IDS)) if row not in left_out])
        except Died:
            continue
        watch.done(SHARD)
        return [sample["sample_id"] for sample in quarantined.values()]


def dying(deadly: Callable[[Sequence[int]], bool]) -> tuple[Callable[[Sequence[int]], None], list[Sequence[int]]]:
    """Work that ends its process where `deadly` says so, and what it was at."""
    deaths: list[Sequence[int]] = []

    def work(rows: Sequence[int]) -> None:
        if deadly(rows):
            deaths.append(rows)
            raise Died

    return work, deaths


def test_samples_that_end_the_process_are_found_one_by_one_and_quarantined() -> None:
    work, deaths = dying(lambda rows: 3 in rows or 7 in rows)
    assert finish(work) == ["s3", "s7"]
    assert deaths[2:] == [[3], [3], [7], [7]] and len(deaths[0]) == len(deaths[1]) == 9


def test_a_sample_that_ends_the_process_is_named_where_none_may_be_quarantined() -> None:
    work, deaths = dying(lambda rows: 3 in rows or 7 in rows)
    with pytest.raises(InputError, match=r"Sample s3 cannot be read: it crashes the process of decoding\."):
        finish(work, allowed=0)
    assert len(deaths) == 4


def test_no_sample_is_quarantined_for_processes_that_die_of_something_else() -> None:
    calls, work_calls = count(), {0, 1, 5, 8}  # as batches, then at s2, then at s1: a machine was lost each time
    work, deaths = dying(lambda rows: next(calls) in work_calls)
    attempts = AttemptsHere()
    assert finish(work, 0, attempts) == []
    assert deaths[2:] == [[2], [1]]
    assert attempts.shards == {}, "what is done is forgotten"


@pytest.mark.parametrize("deadly", [lambda rows: True, lambda rows: len(rows) > 1], ids=["anything", "a batch"])
def test_a_process_that_ends_at_no_sample_in_particular_is_given_up(deadly: Callable[[Sequence[int]], bool]) -> None:
    work, deaths = dying(deadly)
    with pytest.raises(
        InputError, match=r"ended 6 times at shard 3 of train \(samples s0 to s8\), and no sample alone"
    ):
        finish(work)
    assert len(deaths) == 6
