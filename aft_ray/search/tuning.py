"""Ray Tune's side of a search: hands out trials, limits how many run at once, and records how each ends."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import ray
from ray import tune

from aft_ray.cluster.gauges import show_gauges
from aft_ray.cluster.progress import Progress
from aft_ray.recipe.actors import MOST_PROCESSES
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError, in_a_line
from aft_ray.recipe.model import is_own_class
from aft_ray.recipe.own_class import import_class, own_faults
from aft_ray.recipe.secrets import redacted
from aft_ray.search.interrupt import interrupted_by_ctrl_c
from aft_ray.search.proposals import Listed
from aft_ray.search.rounds import Round, delete_state_of_tune
from aft_ray.search.schedulers import AshaPerMethod, population, reports
from aft_ray.search.shared import needed
from aft_ray.search.space import Trial
from aft_ray.search.trial import run_trial
from aft_ray.training.best import score

logger = logging.getLogger(__name__)
NAME = "name"
"""Key of a trial's directory, where the trial's setting may have changed since it was named."""


def run_trials(of: Round, first: Trial) -> None:
    """Runs `first` and the round's further trials that are not over.

    Raises KeyboardInterrupt after Ctrl-C, and InputError if the cluster has no room for a trial.
    """
    recipe, scheduler = of.shared.recipe, _scheduler(of)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial is a row of the table
    with Progress(of.title, _num_trials(of), "trials", done=len(of.names) - 1) as progress:
        at_once = _concurrency(recipe)
        # The proposer knows how many run at once. Without any number here Tune would start one actor after the other.
        proposed: dict[str, Any] = {"search_alg": _Proposer(of, first), "num_samples": -1}
        proposed |= {"max_concurrent_trials": recipe.search.max_concurrent_trials or MOST_PROCESSES}
        space: dict[str, Any] = {}
        if recipe.search.scheduler == "pbt" and scheduler:  # which wants to know its population beforehand
            trials = (_as_saved(of, trial) for trial in (first, *iter(of.next, None)))
            space = {"trial": tune.grid_search([*trials])}
            proposed = {"max_concurrent_trials": at_once}
        data = of.data.in_shared_memory(with_validation=of.shared.with_validation)
        train = tune.with_parameters(run_trial, shared=of.shared, data=data)
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
                name=f"tune-{of.title}-{time.strftime('%Y%m%d-%H%M%S')}",
                storage_path=of.shared.place.path,
                storage_filesystem=None if of.shared.place.is_local else of.shared.place.filesystem,
                failure_config=tune.FailureConfig(max_failures=recipe.train.max_failures),
                callbacks=[_Recorder(of, progress)],
                verbose=0,
            ),
        )
        named = own_faults(recipe.search.scheduler, "search.scheduler")
        try:
            with interrupted_by_ctrl_c(), named, of.searcher_named():
                tuner.fit()
        finally:
            delete_state_of_tune(of.shared.place)


def _scheduler(of: Round) -> Any:
    recipe = of.shared.recipe
    if of.title != "search" or recipe.search.scheduler == "none":
        return None
    if recipe.search.scheduler == "pbt":
        return population(recipe, of.group[0])
    if is_own_class(recipe.search.scheduler):
        with own_faults(recipe.search.scheduler, "search.scheduler"):
            return import_class(recipe.search.scheduler, "search.scheduler", ("on_trial_result",))(recipe)
    # Killed by Tune, a trial would leave its workers' reservations with Ray Train.
    scheduler = AshaPerMethod(recipe, of.shared.ask_to_stop if recipe.search.workers_per_trial > 1 else None)
    for name in (of.shared.place / "trials").folders():
        directory = of.shared.directory(name)
        outcome, facts = directory.outcome(), directory.facts()
        if outcome and outcome["status"] != "failed" and facts["stage"] == "search":
            history = directory.history()
            scores = [score(line, recipe.search.metric) for line in history]
            scheduler.remember(facts["method"], name, reports(history, scores))
    return scheduler


def _as_saved(of: Round, trial: Trial) -> dict[str, Any]:
    """A trial of a population as Tune gets it: with the setting that it had at its last checkpoint."""
    return of.shared.directory(trial.name).as_saved(trial).to_json() | {NAME: trial.name}


def _num_trials(of: Round) -> int:
    """How many there will be, as far as that is known."""
    if isinstance(of.proposals, Listed):
        return len(of.names) + len(of.proposals.waiting)
    search = of.shared.recipe.search
    return sum(int(min(space.size(), search.num_samples or math.inf)) for space in of.group) * search.first_seeds


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
