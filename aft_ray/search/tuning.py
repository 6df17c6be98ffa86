"""Ray Tune's side of a search: hands out trials, limits how many run at once, and records how each ends."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune

from aft_ray.cluster.gauges import show_gauges
from aft_ray.cluster.progress import Progress
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import ClusterError, InputError, in_a_line
from aft_ray.recipe.model import is_own_class
from aft_ray.recipe.own_class import import_class, own_faults
from aft_ray.recipe.secrets import redacted
from aft_ray.recipe.sections import MOST_PROCESSES
from aft_ray.search.interrupt import interrupted_by_ctrl_c
from aft_ray.search.proposals import Listed, Proposals
from aft_ray.search.schedulers import AshaPerMethod, population, reports
from aft_ray.search.space import Space, Trial
from aft_ray.search.trial import Shared, needed, run_trial
from aft_ray.search.trial_data import TrialData
from aft_ray.search.trials import TrialDirectory, TrialRow, known_rows, write_table
from aft_ray.store.files import Directory
from aft_ray.training.best import best_score, score

logger = logging.getLogger(__name__)
WRITE_EVERY_S = 2.0
NAME = "name"
"""Key of a trial's directory, where the trial's setting may have changed since it was named."""
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

    def run(self, *, of_all: bool = False) -> list[TrialRow]:
        """Runs the trials that have not ended; returns this round's rows, with `of_all` also the earlier rounds'.

        Raises KeyboardInterrupt after Ctrl-C, and ClusterError if Tune returns before all trials are over.
        """
        with self._searcher_named():
            first = self.next()
        if first is not None:
            self._tune(first, self._scheduler())
            self._check_ended()
        own = known_rows(self.shared.place / "trials", self.names, self.shared.recipe.search.metric)
        write_table(self.shared.place, [*self.earlier, *own])
        return [*self.earlier, *own] if of_all else own

    def _check_ended(self) -> None:
        """Raises ClusterError if Tune has given up trials, as a scheduler that pauses trials for ever makes it do."""
        if left := [name for name in self.names if self.shared.directory(name).outcome() is None]:
            raise ClusterError(
                f"Ray Tune returned while {len(left)} of {len(self.names)} trials had not ended, the first {left[0]}. Its"
                f" directory is in {self.shared.place}/trials, Ray's logs say more. The same command runs these trials again."
            )

    def _searcher_named(self) -> AbstractContextManager[None]:
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
            rows = known_rows(self.shared.place / "trials", self.names, self.shared.recipe.search.metric)
            write_table(self.shared.place, [*self.earlier, *rows])
            self.written = time.monotonic()

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

    def _scheduler(self) -> Any:
        recipe = self.shared.recipe
        if self.title != "search" or recipe.search.scheduler == "none":
            return None
        if recipe.search.scheduler == "pbt":
            return population(recipe, self.group[0])
        if is_own_class(recipe.search.scheduler):
            with own_faults(recipe.search.scheduler, "search.scheduler"):
                return import_class(recipe.search.scheduler, "search.scheduler", ("on_trial_result",))(recipe)
        # Killed by Tune, a trial would leave its workers' reservations with Ray Train.
        scheduler = AshaPerMethod(recipe, self.shared.ask_to_stop if recipe.search.workers_per_trial > 1 else None)
        for name in (self.shared.place / "trials").folders():
            directory = self.shared.directory(name)
            outcome, facts = directory.outcome(), directory.facts()
            if outcome and outcome["status"] != "failed" and facts["stage"] == "search":
                history = directory.history()
                scores = [score(line, recipe.search.metric) for line in history]
                scheduler.remember(facts["method"], name, reports(history, scores))
        return scheduler

    def _tune(self, first: Trial, scheduler: Any) -> None:
        recipe = self.shared.recipe
        num_trials = self._num_trials()
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial is a row of the table
        with Progress(self.title, num_trials, "trials", done=len(self.names) - 1) as progress:
            at_once = _concurrency(recipe)
            # The proposer knows how many run at once. Without any number here Tune would start one actor after the other.
            proposed: dict[str, Any] = {"search_alg": _Proposer(self, first), "num_samples": -1}
            proposed |= {"max_concurrent_trials": recipe.search.max_concurrent_trials or MOST_PROCESSES}
            space: dict[str, Any] = {}
            if recipe.search.scheduler == "pbt" and scheduler:  # which wants to know its population beforehand
                trials = (self._as_saved(trial) for trial in (first, *iter(self.next, None)))
                space = {"trial": tune.grid_search([*trials])}
                proposed = {"max_concurrent_trials": at_once}
            data = self.data.in_shared_memory(with_validation=self.shared.with_validation)
            train = tune.with_parameters(run_trial, shared=self.shared, data=data)
            tuner = tune.Tuner(
                tune.with_resources(train, _reserved(recipe)),
                param_space=space,
                tune_config=tune.TuneConfig(
                    metric="score",
                    mode="max",
                    scheduler=scheduler,
                    **proposed,
                    trial_name_creator=_name,
                    reuse_actors=recipe.search.workers_per_trial == 1,  # do not wait for a process that imports torch
                ),
                run_config=tune.RunConfig(
                    name=f"tune-{self.title}-{time.strftime('%Y%m%d-%H%M%S')}",
                    storage_path=self.shared.place.path,
                    storage_filesystem=None if self.shared.place.is_local else self.shared.place.filesystem,
                    failure_config=tune.FailureConfig(max_failures=recipe.train.max_failures),
                    callbacks=[_Recorder(self, progress)],
                    verbose=0,
                ),
            )
            named = own_faults(recipe.search.scheduler, "search.scheduler")
            try:
                with interrupted_by_ctrl_c(), named, self._searcher_named():
                    tuner.fit()
            finally:
                delete_state_of_tune(self.shared.place)

    def _as_saved(self, trial: Trial) -> dict[str, Any]:
        """A trial of a population as Tune gets it: with the setting that it had at its last checkpoint."""
        return self.shared.directory(trial.name).as_saved(trial).to_json() | {NAME: trial.name}

    def _num_trials(self) -> int:
        """How many there will be, as far as that is known."""
        if isinstance(self.proposals, Listed):
            return len(self.names) + len(self.proposals.waiting)
        search = self.shared.recipe.search
        return sum(int(min(space.size(), search.num_samples or math.inf)) for space in self.group) * search.first_seeds


def delete_state_of_tune(search: Directory) -> None:
    for name in search.names():
        if OF_TUNE.fullmatch(name):
            (search / name).delete()


def _config(trial: Trial) -> dict[str, Any]:
    """The values that Tune hands to a trial's process."""
    return {"trial": trial.to_json()}


def _name(tune_trial: Any) -> str:
    """The trial's directory. Asked once, so it stays where `pbt` changes the setting."""
    values = tune_trial.config["trial"]
    return str(values.get(NAME) or Trial.of(values).name)


class _NotKept:
    """Nothing of it is pickled, as Tune does with its searcher and callbacks: the trials' directories hold everything, and a bar
    of progress or a user's searcher may have a lock."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Proposer(_NotKept, tune.search.Searcher):
    """Hands the trials of a round to Tune, as many at once as the cluster has room for at that time: nodes may join."""

    def __init__(self, of: Round, first: Trial) -> None:
        super().__init__(metric="score", mode="max")
        self.round, self.first = of, first
        self.trials: dict[str, Trial] = {}
        self.ended: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if len(self.trials) - len(self.ended) >= max(1, _room(self.round.shared.recipe)):
            return None  # Tune asks again
        trial = self.round.next() if self.trials else self.first
        if trial is None:
            return tune.search.Searcher.FINISHED
        self.trials[trial_id] = trial
        return _config(trial)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        if trial_id in self.trials:
            self.ended.add(trial_id)
            self.round.tell(self.trials[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the trials' directories hold everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Recorder(_NotKept, tune.Callback):
    """Writes down how trials end, and shows it."""

    def __init__(self, of: Round, progress: Progress) -> None:
        self.round, self.progress = of, progress

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.round.over(trial.custom_trial_name, "stopped")
        if not math.isfinite(trial.last_result["score"]):
            return self._advance("a trial failed")
        self.round.note_best(trial.custom_trial_name)
        self._advance("on test" if self.round.title == "finals" else self.round.best_so_far())

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error()
        reason = redacted(in_a_line(error, last=True)) if error else "its process died"
        self.round.over(trial.custom_trial_name, "failed", reason)
        self._advance("a trial failed")

    def _advance(self, note: str) -> None:
        self.progress.advance(1, note)
        left = {"trials_left": self.progress.total - self.progress.done}
        show_gauges(self.round.title, self.round.shared.recipe.run, left)


def _reserved(recipe: Recipe) -> dict[str, float]:
    """Resources that Tune reserves for a trial. Several workers of a trial reserve their own CPUs, perhaps all there are;
    Tune must still reserve something: a byte."""
    if recipe.search.workers_per_trial > 1:
        return {"memory": 1}
    return needed(recipe)


def _concurrency(recipe: Recipe) -> int:
    """How many trials may run at the same time. Raises InputError if the cluster has no room for one."""
    there, per_trial, asked = ray.cluster_resources(), needed(recipe), recipe.search.max_concurrent_trials
    room = _room(recipe)
    if not room:
        lacking = ", ".join(f"{count:g} {kind}s ({there.get(kind, 0):g} there)" for kind, count in per_trial.items())
        raise InputError(
            f"The cluster has no room for a trial: it needs {lacking}. Lower search.workers_per_trial,"
            " search.cpus_per_trial or search.gpus_per_trial, or use another cluster."
        )
    if asked is not None and asked > room:
        logger.warning("search.max_concurrent_trials is %d, the cluster has room for %d: the others wait.", asked, room)
    return room


def _room(recipe: Recipe) -> int:
    """How many trials the cluster has room for now, at most `search.max_concurrent_trials`."""
    there, asked = ray.cluster_resources(), recipe.search.max_concurrent_trials
    fitting = int(min(there.get(kind, 0) / count + 1e-9 for kind, count in needed(recipe).items()))
    return fitting if asked is None else min(asked, fitting)
