"""Re-reads everything that a training wrote beside its student: one line for each file that is damaged or foreign."""

from __future__ import annotations

from functools import partial

from aft_ray.recipe.errors import faults_of
from aft_ray.recipe.json_files import damaged
from aft_ray.training.checkpoint import COMMIT, TrainingState
from aft_ray.training.evaluations import METRICS
from aft_ray.training.provenance import with_later_keys
from aft_ray.training.runs import CONFIG, INPUTS, STUDENT, RunDirectory
from aft_ray.training.trackers import logged_run

OURS = (CONFIG, INPUTS, METRICS, STUDENT)


def is_run(run: RunDirectory) -> bool:
    """Whether a training has written there."""
    return any(run.place.has(name) for name in OURS)


def run_faults(run: RunDirectory, *, goes_on_as_started: bool = True) -> list[str]:
    """Faults of a run's or trial's files. goes_on_as_started: its checkpoints are of the settings that it was claimed with."""
    if faults := faults_of(run.inputs):
        return faults
    inputs = run.inputs() if goes_on_as_started else None
    if inputs is not None:
        inputs["recipe"] = with_later_keys(inputs["recipe"])
    checkpoints = [partial(TrainingState.load, place, inputs) for place in run.checkpoints() if place.has(COMMIT)]
    return faults_of(partial(_check_history, run), run.config, partial(logged_run, run.place), *checkpoints)


def _check_history(run: RunDirectory) -> None:
    if not run.history() and run.is_finished:
        raise damaged(f"{run.place}/{METRICS}", ["it is missing"], run.way_out)
