"""A round of a search: which trials are over, which is next, how each ends, and the table of all. Without Ray: `tuning` runs
the trials that are left.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from aft_ray.recipe.errors import ClusterError
from aft_ray.recipe.own_class import own_faults
from aft_ray.search.proposals import Proposals
from aft_ray.search.shared import Shared
from aft_ray.search.space import Space, Trial
from aft_ray.search.trial_data import TrialData
from aft_ray.search.trials import TrialDirectory, TrialRow, known_rows, write_table
from aft_ray.store.files import Directory
from aft_ray.training.best import best_score

WRITE_EVERY_S = 2.0
OF_TUNE = re.compile(r"tune-(search|finalists|finals)-\d{8}-\d{6}")
"""The directory of Tune's own state. All that is worth keeping lies in the trials' directories."""


@dataclass
class Round:
    """Trials that run side by side: the search's own, or the final ones. data: is loaded if one of them has to run. earlier: rows
    of the rounds before."""

    shared: Shared
    data: TrialData
    proposals: Proposals
    group: Sequence[Space]
    title: str
    earlier: Sequence[TrialRow]
    names: list[str] = field(default_factory=list)
    written: float = 0.0
    best: tuple[float, str] = (-math.inf, "")

    def rows(self) -> list[TrialRow]:
        """Of its trials so far; writes them to the table, after the earlier rounds'."""
        rows = known_rows(self.shared.place / "trials", self.names, self.shared.recipe.search.metric)
        write_table(self.shared.place, [*self.earlier, *rows])
        self.written = time.monotonic()
        return rows

    def check_ended(self) -> None:
        """Raises ClusterError if Tune has given up trials, as a scheduler that pauses trials for ever makes it do."""
        if left := [name for name in self.names if self.shared.directory(name).outcome() is None]:
            raise ClusterError(
                f"Ray Tune returned while {len(left)} of {len(self.names)} trials had not ended, the first {left[0]}. Its"
                f" directory is in {self.shared.place}/trials, Ray's logs say more. The same command runs these trials again."
            )

    def searcher_named(self) -> AbstractContextManager[None]:
        """Errors of the user's own searcher are told as its."""
        return own_faults(self.shared.recipe.search.searcher, "search.searcher")

    def next(self) -> Trial | None:
        """The next trial that has not ended; the searcher is told of ended ones.

        Raises InputError as `TrialData.load`, and if another trial lies in its directory.
        """
        while (trial := self.proposals.next()) is not None:
            self.names.append(trial.name)
            directory = self.shared.directory(trial.name)
            recipe = self.shared.recipe_of(trial)
            inputs = self.shared.inputs_of(recipe)
            is_over = directory.check_claim(inputs) and directory.is_over()
            if not is_over:
                self.data.load()  # a fault of the samples leaves no claim: mended samples are other inputs
            directory.claim_trial(trial, len(self.names), recipe, inputs)
            if not is_over:
                directory.reopen()
                return trial
            self.proposals.tell(trial, self._best(directory))
            self.note_best(trial.name)
        return None

    def over(self, name: str, status: str, error: str | None = None) -> None:
        """Records how a trial ended, unless the trial itself has."""
        directory = self.shared.directory(name)
        if directory.outcome() is None:
            directory.end(status, error)
        if time.monotonic() - self.written > WRITE_EVERY_S:
            self.rows()

    def tell(self, trial: Trial) -> None:
        self.proposals.tell(trial, self._best(self.shared.directory(trial.name)))

    def note_best(self, name: str) -> None:
        """Keeps the best of the trials that are over, for the line that shows the progress."""
        directory = self.shared.directory(name)
        value = self._best(directory)
        if value is not None and math.isfinite(value):
            found = (value, Trial.of(directory.facts()).setting.in_words())
            self.best = max(self.best, found, key=lambda best: best[0])

    def best_so_far(self) -> str:
        """The best score of a trial that is over, and its setting."""
        value, setting = self.best
        return f"best {value:.3f}: {setting}" if setting else ""

    def _best(self, directory: TrialDirectory) -> float | None:
        """The score of a finished trial, None of a failed one."""
        if (directory.outcome() or {}).get("status") == "failed":
            return None
        return best_score(directory.history(), self.shared.recipe.search.metric)


def delete_state_of_tune(search: Directory) -> None:
    for name in search.names():
        if OF_TUNE.fullmatch(name):
            (search / name).delete()
