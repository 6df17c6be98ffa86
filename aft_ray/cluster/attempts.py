"""Finds samples that crash their process, with state that outlives the process.

A shard whose process died is begun again: once as before, since most processes die of something else, such as a lost
machine or full memory. After a second death its samples are first tried alone, one after the other, and a sample that two
processes died at is quarantined. Both processes had done an empty task and every earlier sample without a fault: neither
the machine nor the model is to blame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aft_ray.recipe.errors import InputError
from aft_ray.store.quarantine import check_quarantined

PATIENCE = 2
"""Attempts per shard before its samples are tried alone."""
DEATHS = 2
"""Crashes on a sample, run alone, after which it is quarantined."""
MOST = 6
"""Most attempts per shard, not counting the attempts that quarantined samples explain."""


class Attempts(Protocol):
    """State of the shards at work, shared by all processes that work on them; it outlives them. Shards go by any name."""

    def begin(self, shard: str) -> tuple[int, list[int]]:
        """Begins the shard. Returns its unexplained attempts, this one included, and the rows to quarantine."""
        ...

    def alone(self, shard: str, row: int | None) -> None:
        """A process reports the row that it tries next, alone; None after the last."""
        ...

    def part(self, shard: str, share: float) -> None:
        """A process reports the share of the shard that it has done, for those who wait."""
        ...

    def parts(self) -> float:
        """The shares of all shards at work, added up."""
        ...

    def done(self, shard: str) -> None: ...


@dataclass
class _Shard:
    begun: int = 0
    share: float = 0.0
    alone: int | None = None
    deaths: Counter[int] = field(default_factory=Counter)


class AttemptsHere:
    """`Attempts` in this process."""

    def __init__(self) -> None:
        self.shards: dict[str, _Shard] = {}

    def begin(self, shard: str) -> tuple[int, list[int]]:
        known = self.shards.setdefault(shard, _Shard())
        known.begun += 1
        known.share = 0.0
        if known.alone is not None:
            known.deaths[known.alone] += 1
            known.alone = None
        culprits = sorted(row for row, count in known.deaths.items() if count >= DEATHS)
        return known.begun - DEATHS * len(culprits), culprits

    def alone(self, shard: str, row: int | None) -> None:
        self.shards.setdefault(shard, _Shard()).alone = row

    def part(self, shard: str, share: float) -> None:
        if shard in self.shards:  # a report may come after the shard's end
            self.shards[shard].share = share

    def parts(self) -> float:
        return sum(shard.share for shard in self.shards.values())

    def done(self, shard: str) -> None:
        self.shards.pop(shard, None)


@dataclass(frozen=True)
class Watch:
    """Guards one kind of work on shards, such as decoding or one teacher's features, against samples that crash it."""

    attempts: Attempts
    work: str
    max_bad_samples: int

    def begin(
        self,
        shard: str,
        sample_ids: Sequence[str],
        quarantined: dict[int, dict[str, str]],
        work_alone: Callable[[int | None], object],
    ) -> list[int]:
        """Begins the shard. Returns the rows that crash their process, and adds them to `quarantined`, samples by row.

        work_alone: does the work for one row, or for None an empty task.
        Raises InputError if more than `max_bad_samples` are quarantined, or processes keep dying at no row in particular.
        """
        key = f"{self.work}, {shard}"
        begun, culprits = self.attempts.begin(key)
        reason = f"it crashes the process of {self.work}"
        quarantined.update({row: {"sample_id": sample_ids[row], "reason": reason} for row in culprits})
        check_quarantined(list(quarantined.values()), self.max_bad_samples)
        if begun > MOST:
            raise InputError(
                f"The process of {self.work} ended {MOST} times at {shard} (samples {sample_ids[0]} to {sample_ids[-1]}),"
                " and no sample alone crashes it. Its machine may lack memory: try a smaller batch_size or"
                " samples_per_shard. Finished shards are kept."
            )
        if begun > PATIENCE:
            work_alone(None)
            for row in range(len(sample_ids)):
                if row not in quarantined:
                    self.attempts.alone(key, row)
                    work_alone(row)
            self.attempts.alone(key, None)
        return culprits

    def part(self, shard: str, share: float) -> None:
        """This share of the shard is done."""
        self.attempts.part(f"{self.work}, {shard}", share)

    def done(self, shard: str) -> None:
        """The work on the shard is finished."""
        self.attempts.done(f"{self.work}, {shard}")
