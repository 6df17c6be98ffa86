"""The verbs of the command line with Ray replaced by this process: the same code, without the seconds that a cluster takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partialmethod
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import ray

import aft_ray.commands.extract
import aft_ray.commands.predict
import aft_ray.commands.search
import aft_ray.export.predict_in_cluster
import aft_ray.extraction.extract
import aft_ray.search.search
import aft_ray.search.trial
import aft_ray.search.tuning
import aft_ray.training.train
from aft_ray.cluster.attempts import AttemptsHere
from aft_ray.cluster.crew import Stage
from aft_ray.search.rounds import Round
from aft_ray.search.space import Trial
from aft_ray.search.trial import run_trial
from aft_ray.store.files import Directory
from aft_ray.training.checkpoint import TrainingState


class Killed(Exception):
    """Ends a training as a kill would."""


@contextmanager
def without_ray(*, killed_at: int | None = None) -> Iterator[None]:
    """Verbs that are run inside start no cluster. killed_at: the step whose checkpoint is the last thing that a training does."""
    names = ("extract", "predict", "search")
    commands = [(getattr(aft_ray.commands, name), "ray_cluster", lambda *given: nullcontext()) for name in names]
    pipelines = [
        (module, name, replacement)
        for module in (aft_ray.extraction.extract, aft_ray.export.predict_in_cluster)
        for name, replacement in (("run_pipeline", _run_pipeline), ("attempts_elsewhere", _attempts_here))
    ]
    others: list[tuple[Any, str, Any]] = [
        (ray, "put", lambda value: value),
        (ray, "get", lambda value: value),
        (aft_ray.training.train, "needs_ray", lambda recipe: False),
        (TrainingState, "save", partialmethod(_save, killed_at=killed_at, save=TrainingState.save)),
        (aft_ray.search.tuning, "run_trials", _run_trials),
    ]
    with ExitStack() as stack:
        for place, name, replacement in (*commands, *pipelines, *others):
            stack.enter_context(patch.object(place, name, replacement))
        yield


def _run_pipeline(
    stages: Sequence[Stage], pools: Any, resources: Any, items: Iterable[Any], take: Callable[..., None]
) -> None:
    actors = [stage.make(*stage.args) for stage in stages]
    for passed in list(items):
        for actor in actors:
            passed = actor(passed)
        take(passed)


@contextmanager
def _attempts_here() -> Iterator[AttemptsHere]:
    yield AttemptsHere()


def _save(state: TrainingState, directory: Directory, *, killed_at: int | None, save: Callable[..., None]) -> None:
    """`TrainingState.save`, after which a kill may come."""
    save(state, directory)
    if state.step == killed_at:
        raise Killed


def _run_trials(of: Round, first: Trial) -> None:
    """The trials one after the other."""
    trial: Trial | None = first
    while trial is not None:
        context = SimpleNamespace(get_trial_name=lambda name=trial.name: name)
        tune = SimpleNamespace(
            get_context=lambda found=context: found, report=lambda *given, **options: None, get_checkpoint=lambda: None
        )
        with patch.object(aft_ray.search.trial, "tune", tune):
            data = of.data.in_shared_memory(with_validation=of.shared.with_validation)
            run_trial({"trial": trial.to_json()}, shared=of.shared, data=data)
        of.over(trial.name, "stopped")
        of.tell(trial)
        trial = of.next()
