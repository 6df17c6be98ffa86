"""search: beta and combinations of teachers over one cache, on Ray Tune; then each method's best on fresh seeds.

Features are extracted once for all teachers and the splits are decoded once; every trial reads its teachers' columns from
Ray's shared memory. A trial is `fit` with overrides, in one process: the objective is that of the global batch, so the
number of workers would not change it. Trials are compared on validation; only final runs see the test split.
"""

from __future__ import annotations

import io
import json
import logging
import math
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from aft_ray.check import check, compared_teachers, open_stores
from aft_ray.checkpoint import TrainingState
from aft_ray.config import InputError, Recipe, dump, override
from aft_ray.data import Data, load_data
from aft_ray.fit import fit
from aft_ray.metrics import best_line, score
from aft_ray.progress import Progress
from aft_ray.shards import Directory
from aft_ray.store import Workspace

ROW_SCHEMA = pa.schema(
    [
        pa.field("trial", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("regularizer.name", pa.string()),
        pa.field("regularizer.beta", pa.float64()),
        pa.field("teachers", pa.list_(pa.string())),
        pa.field("train.seed", pa.int64()),
        pa.field("seed", pa.int64()),
        pa.field("val_accuracy", pa.float64()),
        pa.field("val_loss", pa.float64()),
        pa.field("test_accuracy", pa.float64()),
        pa.field("step", pa.int64()),
        pa.field("wall_time_s", pa.float64()),
        pa.field("status", pa.string()),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Trial:
    """One training of a search. stage: `search`, compared on validation, or `final`, which also sees the test split."""

    stage: str
    method: str
    beta: float
    teachers: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """The directory under `trials/`; the same setting has the same name in every run of the search."""
        return f"{self.stage}-{self.setting}-seed{self.seed}"

    @property
    def setting(self) -> str:
        """What the search chooses, as part of a name."""
        return f"{self.method}-beta{self.beta:g}-{'_'.join(self.teachers) or 'no-teacher'}"

    def recipe(self, base: Recipe) -> Recipe:
        """`base` with this trial's values in place."""
        options = base.regularizer.options if self.method == base.regularizer.name else {}
        section = {"name": self.method, "beta": self.beta, "learning_rate": base.regularizer.learning_rate, **options}
        kept = [teacher.model_dump(mode="json") for teacher in base.teachers if teacher.name in self.teachers]
        return override(
            base,
            {
                "regularizer": section,
                "teachers": kept,
                "train.seed": self.seed,
                "train.num_workers": 1,
                "search.teachers": "all_subsets",
                "search.compare": [],
            },
        )


def search(recipe: Recipe) -> list[dict[str, Any]]:
    """Runs the search and its final runs. Returns the rows of `trials.parquet`; finished trials are not run again.

    Raises InputError for any fault of the recipe, before anything starts.
    """
    check(recipe)
    place = Workspace.at(recipe.workspace).search(recipe.run)
    data = load_data(recipe, open_stores(recipe))
    trials = plan_trials(recipe)
    rows = _run_trials(recipe, trials, data, place, "search")
    finals = [
        Trial("final", best.method, best.beta, best.teachers, recipe.train.seed + 1 + number)
        for best in _best_by_method(trials, rows)
        for number in range(recipe.search.final_seeds)
    ]
    rows += _run_trials(recipe, finals, data, place, "finals")
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), sink)
    place.write("trials.parquet", sink.getvalue())
    winner = _winner(finals, rows)
    if winner is not None:
        changes = {"train": recipe.train.model_dump(), "run": f"{recipe.run}-{winner.setting}"}
        place.write("best.yaml", dump(override(winner.recipe(recipe), changes)).encode())
    return rows


def plan_trials(recipe: Recipe) -> list[Trial]:
    """The grid: every method's betas x combinations of teachers; at most `num_samples` per method, drawn at random."""
    seed, trials = recipe.train.seed, []
    for method in recipe.search.compare or (recipe.regularizer.name,):
        subsets = [()] if method == "none" else compared_teachers(recipe)
        grid = [Trial("search", method, beta, s, seed) for s in subsets for beta in recipe.search.betas(method)]
        if recipe.search.num_samples is not None and recipe.search.num_samples < len(grid):
            grid = random.Random(seed).sample(grid, recipe.search.num_samples)
        trials += grid
    return trials


def _run_trials(
    recipe: Recipe, trials: Sequence[Trial], data: Data, place: Directory, title: str
) -> list[dict[str, Any]]:
    """A row per trial, in order. What is finished on disk is taken from there."""
    waiting = [trial for trial in trials if _finished_row(trial, recipe, place) is None]
    errors: dict[str, str] = {}
    if waiting:
        errors = _tune(recipe, waiting, data, place, title)
    return [_finished_row(trial, recipe, place) or _unfinished_row(trial, place, errors) for trial in trials]


def _tune(recipe: Recipe, trials: Sequence[Trial], data: Data, place: Directory, title: str) -> dict[str, str]:
    """Runs trials on the cluster. Returns the reasons of those that failed, by name."""
    per_trial = {"CPU": 1, "GPU": 1} if recipe.train.use_gpu else {"CPU": 1}
    lacking = [kind for kind, count in per_trial.items() if ray.cluster_resources().get(kind, 0) < count]
    if lacking:
        raise InputError(
            f"The cluster has no {lacking[0]} for a trial. Set train.use_gpu=false or use another cluster."
        )
    asha = recipe.search.scheduler == "asha"
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial is a row of the table
    with Progress(title, len(trials), "trials") as progress:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_run_trial, recipe=recipe, data=data, place=place), per_trial),
            param_space={"trial": tune.grid_search([asdict(trial) for trial in trials])},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                scheduler=_AshaPerMethod(recipe.train.steps) if title == "search" and asha else None,
                max_concurrent_trials=recipe.search.max_concurrent_trials or 0,
                reuse_actors=True,  # a trial of seconds should not wait for a process that imports torch
            ),
            run_config=tune.RunConfig(
                name=f"{title}-{time.strftime('%Y%m%d-%H%M%S')}",
                storage_path=f"{place.path}/tune",
                storage_filesystem=None if place.is_local else place.filesystem,
                callbacks=[_ShowProgress(progress)],
                verbose=0,
            ),
        )
        results = tuner.fit()
    return {
        Trial(**_as_trial(result.config["trial"])).name: str(result.error).strip().splitlines()[-1]
        for result in results
        if result.error is not None and result.config is not None
    }


def _run_trial(config: dict[str, Any], *, recipe: Recipe, data: Data, place: Directory) -> None:
    """What Tune runs, in a process of its own."""
    trial = Trial(**_as_trial(config["trial"]))
    directory = place / "trials" / trial.name
    started = time.perf_counter()

    def report(metrics: dict[str, Any], state: TrainingState) -> None:
        seconds = time.perf_counter() - started
        directory.write("trial.json", json.dumps({"wall_time_s": seconds}).encode())
        tune.report({"step": state.step, "score": score(best_line(state.history))})

    trial_recipe = trial.recipe(recipe)
    directory.write("config.yaml", dump(trial_recipe).encode())
    fit(trial_recipe, data, directory=directory, report=report, evaluate_test=trial.stage == "final")


class _AshaPerMethod(FIFOScheduler):
    """ASHA among the trials of one method: a method that learns slowly at first must not be stopped by another."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.schedulers: dict[str, ASHAScheduler] = {}

    def _scheduler(self, trial: Any) -> ASHAScheduler:
        method = trial.config["trial"]["method"]
        if method not in self.schedulers:
            scheduler = ASHAScheduler(
                "step", max_t=self.steps, grace_period=max(1, self.steps // 3), reduction_factor=2
            )
            scheduler.set_search_properties("score", "max")
            self.schedulers[method] = scheduler
        return self.schedulers[method]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._scheduler(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._scheduler(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._scheduler(trial).on_trial_complete(tune_controller, trial, result)


class _ShowProgress(tune.Callback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.progress.advance(1, f"score {trial.last_result.get('score', float('nan')):.3f}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.progress.advance(1, "a trial failed")


def _as_trial(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"teachers": tuple(values["teachers"])}


def _finished_row(trial: Trial, recipe: Recipe, place: Directory) -> dict[str, Any] | None:
    """The row of a trial that ran to its last step with this recipe, None of any other."""
    directory = place / "trials" / trial.name
    if not directory.has("student/student.json"):
        return None
    if directory.read("config.yaml").decode() != dump(trial.recipe(recipe)):
        return None
    return _row(trial, directory, "finished")


def _unfinished_row(trial: Trial, place: Directory, errors: dict[str, str]) -> dict[str, Any]:
    if trial.name in errors:
        return _row(trial, None, "failed", errors[trial.name])
    return _row(trial, place / "trials" / trial.name, "stopped")


def _row(trial: Trial, directory: Directory | None, status: str, error: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial": trial.name,
        "stage": trial.stage,
        "regularizer.name": trial.method,
        "regularizer.beta": trial.beta,
        "teachers": list(trial.teachers),
        "train.seed": trial.seed,
        "seed": trial.seed,
        "val_accuracy": None,
        "val_loss": None,
        "test_accuracy": None,
        "step": None,
        "wall_time_s": None,
        "status": status,
        "error": error,
    }
    if directory is not None:
        history = [json.loads(line) for line in directory.read("metrics.jsonl").splitlines()]
        best = best_line(history)
        row |= {key: best[key] for key in ("val_accuracy", "val_loss", "step")}
        row |= {"test_accuracy": history[-1].get("test_accuracy"), **json.loads(directory.read("trial.json"))}
    return row


def _best_by_method(trials: Iterable[Trial], rows: Iterable[dict[str, Any]]) -> list[Trial]:
    """Each method's trial with the highest validation score; the earlier one of equals."""
    best: dict[str, tuple[float, Trial]] = {}
    for trial, row in zip(trials, rows, strict=True):
        if row["val_loss"] is not None and score(row) > best.get(trial.method, (-math.inf, trial))[0]:
            best[trial.method] = (score(row), trial)
    return [trial for _, trial in best.values()]


def _winner(finals: Sequence[Trial], rows: Sequence[dict[str, Any]]) -> Trial | None:
    """The first final run of the method with the highest mean validation score over its final seeds."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row["stage"] == "final" and row["val_loss"] is not None:
            scores.setdefault(row["regularizer.name"], []).append(score(row))
    means = {method: sum(values) / len(values) for method, values in scores.items()}
    if not means:
        return None
    return next(trial for trial in finals if trial.method == max(means, key=means.__getitem__))
