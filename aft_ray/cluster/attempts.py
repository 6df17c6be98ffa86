"""Which sample ends a process: what is remembered, outside the processes that die, of every shard that is at work.

A shard whose process died is begun again: once as before, since most processes die of something else, such as a machine
that is lost or a memory that is full. After a second death its samples are first tried alone, one after the other, and one
that two processes died at is put aside. Both times the work had gone well for nothing at all, and for every sample before
it: neither the machine nor the model is to blame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aft_ray.recipe.errors import InputError
from aft_ray.store.quarantine import check_bad_samples

PATIENCE = 2
"""Times that a shard is begun before its samples are tried alone."""
DEATHS = 2
"""Of processes that tried a sample alone, before it is put aside."""
MOST = 6
"""Times that a shard is begun in all, less those that samples put aside account for."""


class Attempts(Protocol):
    """The memory of all processes that work on shards; it outlives them. Shards go by any name."""

    def begin(self, shard: str) -> tuple[int, list[int]]:
        """How often the shard was begun, this time included, for no sample's sake; and the rows to put aside."""
        ...

    def alone(self, shard: str, row: int | None) -> None:
        """What a process tells before it tries a row alone; None after the last."""
        ...

    def done(self, shard: str) -> None: ...


@dataclass
class _Shard:
    begun: int = 0
    alone: int | None = None
    deaths: Counter[int] = field(default_factory=Counter)


class AttemptsHere:
    """`Attempts` in this process."""

    def __init__(self) -> None:
        self.shards: dict[str, _Shard] = {}

    def begin(self, shard: str) -> tuple[int, list[int]]:
        known = self.shards.setdefault(shard, _Shard())
        known.begun += 1
        if known.alone is not None:
            known.deaths[known.alone] += 1
            known.alone = None
        culprits = sorted(row for row, count in known.deaths.items() if count >= DEATHS)
        return known.begun - DEATHS * len(culprits), culprits

    def alone(self, shard: str, row: int | None) -> None:
        self.shards.setdefault(shard, _Shard()).alone = row

    def done(self, shard: str) -> None:
        self.shards.pop(shard, None)


@dataclass(frozen=True)
class Watch:
    """One kind of work on shards, such as decoding or that of one teacher, and the samples that end its process."""

    attempts: Attempts
    work: str
    max_bad_samples: int

    def begin(
        self,
        shard: str,
        sample_ids: Sequence[str],
        bad: dict[int, dict[str, str]],
        work_alone: Callable[[int | None], object],
    ) -> list[int]:
        """The rows of a shard that must be left out of the work that now begins. They are added to `bad`, the samples that
        are put aside, by row.

        work_alone: does the work for one row, or for None in the place of a row.
        Raises InputError if more than `max_bad_samples` are bad, or processes end again and again at no row in particular.
        """
        key = f"{self.work}, {shard}"
        begun, culprits = self.attempts.begin(key)
        reason = f"it ends the process of {self.work}"
        bad.update({row: {"sample_id": sample_ids[row], "reason": reason} for row in culprits})
        check_bad_samples(list(bad.values()), self.max_bad_samples)
        if begun > MOST:
            raise InputError(
                f"The process of {self.work} ended {MOST} times at {shard} (samples {sample_ids[0]} to {sample_ids[-1]}),"
                " and no sample alone ends it. Its machine may lack memory: try a smaller batch_size or samples_per_shard."
                " What was written is kept."
            )
        if begun > PATIENCE:
            work_alone(None)
            for row in range(len(sample_ids)):
                if row not in bad:
                    self.attempts.alone(key, row)
                    work_alone(row)
            self.attempts.alone(key, None)
        return culprits

    def done(self, shard: str) -> None:
        """The work on the shard is finished."""
        self.attempts.done(f"{self.work}, {shard}")
