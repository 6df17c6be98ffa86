"""Proposes the next trial: from a list, or by Optuna's TPE, which learns from earlier trials (arXiv 1907.10902).

A proposal depends only on its number and the scores told so far. A search that starts again and is told the scores on disk
therefore continues as the killed one would have.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.search_section import Range
from aft_ray.search.space import BETA, TEACHERS, Setting, Space, Trial, rounded, seeded

TRIES, LEARNED_TRIES = 100, 5
"""Repeated proposals in a row after which the space counts as exhausted; after the first few, settings are drawn at random."""


class Proposals(Protocol):
    """Trials one after another. known: the trials on disk, in their order; they are proposed first."""

    def next(self) -> Trial | None:
        """The next trial, None if there are no more."""

    def tell(self, trial: Trial, score: float | None) -> None:
        """Takes the score of an ended trial, higher is better; None if it failed."""


class Listed:
    """Trials that are known from the start."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.waiting = deque(trials)

    def next(self) -> Trial | None:
        return self.waiting.popleft() if self.waiting else None

    def tell(self, trial: Trial, score: float | None) -> None:
        pass


class Learned:
    """`num_samples` settings of each method in turn, each method's learnt from its own trials."""

    def __init__(self, recipe: Recipe, spaces: Sequence[Space], known: Sequence[Trial]) -> None:
        self.recipe = recipe
        self.studies = {space.method: _Study(recipe, space) for space in spaces}
        self.waiting: deque[Trial] = deque()
        for setting in dict.fromkeys(trial.setting for trial in known if trial.setting.method in self.studies):
            self.studies[setting.method].add(setting)
            self.waiting += seeded(recipe, setting)

    def next(self) -> Trial | None:
        if not self.waiting:
            open_ones = [study for study in self.studies.values() if not study.is_exhausted]
            for study in sorted(open_ones, key=lambda study: len(study.numbers)):
                if (setting := study.propose()) is not None:
                    self.waiting += seeded(self.recipe, setting)
                    break
        return self.waiting.popleft() if self.waiting else None

    def tell(self, trial: Trial, score: float | None) -> None:
        self.studies[trial.setting.method].tell(trial.setting, score)


class _Study:
    """One method's settings, and Optuna's study of them."""

    def __init__(self, recipe: Recipe, space: Space) -> None:
        optuna = _optuna()
        self.optuna, self.space = optuna, space
        self.limit, self.num_seeds = recipe.search.num_samples or 0, recipe.search.first_seeds
        self.as_bits = recipe.teacher_names() if recipe.search.subsets_as == "bits" and space.method != "none" else ()
        self.seed = recipe.train.seed
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
        self.numbers: dict[Setting, int] = {}
        self.scores: dict[Setting, list[float | None]] = {}
        self.is_exhausted = False

    def propose(self) -> Setting | None:
        """A new setting."""
        if len(self.numbers) < min(self.limit, self.space.size()):
            for attempt in range(TRIES):
                self.study.sampler = self._sampler(attempt)
                asked = self.study.ask(self._distributions())
                self.study.tell(asked.number, state=self.optuna.trial.TrialState.FAIL)
                setting = self._setting(asked.params)
                if setting not in self.numbers:
                    self.add(setting)
                    return setting
        self.is_exhausted = True
        return None

    def add(self, setting: Setting) -> None:
        """Records a setting to try, with the exact numbers of its trial."""
        running = self.optuna.trial.TrialState.RUNNING
        params, distributions = self._params(setting), self._distributions()
        self.study.add_trial(self.optuna.trial.create_trial(state=running, params=params, distributions=distributions))
        self.numbers[setting] = len(self.study.get_trials(deepcopy=False)) - 1

    def tell(self, setting: Setting, score: float | None) -> None:
        """The mean over seeds, when all are over."""
        scores = self.scores.setdefault(setting, [])
        scores.append(score)
        if len(scores) < self.num_seeds:
            return
        known = [score for score in scores if score is not None]
        if known:
            self.study.tell(self.numbers[setting], math.fsum(known) / len(known))
        else:
            self.study.tell(self.numbers[setting], state=self.optuna.trial.TrialState.FAIL)

    def _sampler(self, attempt: int) -> Any:
        """A fresh sampler, so that a proposal does not depend on the process that makes it."""
        samplers, seed = self.optuna.samplers, hash((self.seed, len(self.numbers), attempt)) % 2**32
        if attempt >= LEARNED_TRIES:
            return samplers.RandomSampler(seed)
        return samplers.TPESampler(seed=seed, n_startup_trials=min(10, self.limit // 3))

    def _distributions(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        categorical = self.optuna.distributions.CategoricalDistribution
        for key, values in self.space.values.items():
            if key == TEACHERS and self.as_bits:
                found |= {f"with {name}": categorical((False, True)) for name in self.as_bits}
                found["with, if none"] = categorical(tuple(range(len(self.as_bits))))
            elif isinstance(values, Range):
                found[key] = self.optuna.distributions.FloatDistribution(values.min, values.max, log=values.log)
            else:
                found[key] = categorical(tuple(range(len(values))))
        return found

    def _setting(self, params: dict[str, Any]) -> Setting:
        chosen: dict[str, Any] = {}
        for key, values in self.space.values.items():
            if key == TEACHERS and self.as_bits:
                kept = tuple(name for name in self.as_bits if params[f"with {name}"])
                chosen[key] = kept or (self.as_bits[params["with, if none"]],)
            elif isinstance(values, Range):
                chosen[key] = min(max(rounded(params[key]), values.min), values.max)
            else:
                chosen[key] = values[params[key]]
        return self.space.setting(chosen)

    def _params(self, setting: Setting) -> dict[str, Any]:
        chosen = {BETA: setting.beta, TEACHERS: setting.teachers, **dict(setting.others)}
        params: dict[str, Any] = {}
        for key, values in self.space.values.items():
            if key == TEACHERS and self.as_bits:
                params |= {f"with {name}": name in setting.teachers for name in self.as_bits}
                params["with, if none"] = self.as_bits.index(setting.teachers[0])
            elif isinstance(values, Range):
                params[key] = chosen[key]
            else:
                params[key] = [self.space.setting({**chosen, key: value}) for value in values].index(setting)
        return params


def faults(recipe: Recipe) -> list[str]:
    """One line if the recipe needs an optional package that is not installed."""
    if recipe.search.searcher != "optuna":
        return []
    try:
        _optuna()
    except InputError as error:
        return error.faults
    return []


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError("search.searcher=optuna needs a package: pip install 'aft-ray[optuna]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
