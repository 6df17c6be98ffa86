"""A workspace with two files of every kind that commands write, made without a cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aft_ray.cli import main
from aft_ray.commands.check import open_setup
from aft_ray.export.prediction_files import output_directory, staged
from aft_ray.export.predictions import PredictionTable
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.search.best import best_settings, winner
from aft_ray.search.search import plan_search, write_winner
from aft_ray.search.shared import Shared
from aft_ray.search.space import Setting
from aft_ray.search.teacher_heads import update_heads
from aft_ray.search.trials import known_rows, write_table
from aft_ray.store.schema import SPLITS
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import load_data
from aft_ray.training.inputs.stores import open_stores
from aft_ray.training.provenance import run_inputs
from aft_ray.training.runs import RunDirectory
from tests.helpers.training import Killed, made_workspace

CHANGES = {
    "train": {"steps": 4, "evaluate_every": 2, "global_batch_size": 16, "learning_rate": 0.003},
    "search": {"compare": ["aft"], "beta": [1, 3], "teachers": [["one"]], "scheduler": "none", "final": {"seeds": 0}},
    "student": {"model": "tiny:cnn"},
}


def whole_workspace(place: Path) -> Path:
    """Writes `place/work` and returns the recipe beside it."""
    given = made_workspace(place / "work", CHANGES)
    path = place / "recipe.yaml"
    path.write_text(dump(given))
    for name, seed in (("main", 0), ("second", 1)):
        own = [str(path), f"run={name}", f"train.seed={seed}"]
        for command in (["train"], ["evaluate", "--split", "test"], ["evaluate", "--split", "validation"], ["export"]):
            assert main([command[0], *own, *command[1:]]) == 0
        search(override(given, {"run": name, "train.seed": seed}))
        predictions(given, name)
        cut(override(given, {"run": f"{name}-cut", "train.seed": seed}))
    assert main(["rank", str(path)]) == 0
    return path


def search(given: Recipe) -> None:
    setup = open_setup(given, "search")
    shared = Shared(given, setup.stores, Workspace.at(given.workspace).search(given.run))
    trials = plan_search(setup)
    for number, trial in enumerate(trials, 1):
        own, directory = shared.recipe_of(trial), shared.directory(trial.name)
        directory.claim_trial(trial, number, own, shared.inputs_of(own))
        fit(own, load_data(own, setup.stores), directory=directory.place, report=lambda metrics, state: None)
        directory.end("finished")
    rows = known_rows(shared.place / "trials", [trial.name for trial in trials], None)
    write_table(shared.place, rows)
    write_winner(given, shared.place, Setting(*winner(best_settings(rows, None)).key))
    update_heads(shared.place, given, open_stores(given, given.teacher_names(), SPLITS))


def predictions(given: Recipe, name: str) -> None:
    workspace = Workspace.at(given.workspace)
    form = PredictionTable("classification", ("a", "b", "c"), with_errors=True)
    with staged(workspace, output_directory(workspace, name, None, "/elsewhere")) as new:
        hashes = {part: new.write(part, form.rows([f"{name}{part}"], np.eye(3)[:1])) for part in range(2)}
        new.publish(hashes, {"run": name, "num_samples": 2, "num_errors": 0, "counts": {"a": 2}})


def cut(given: Recipe) -> None:
    """A run that is killed when it has saved its first checkpoint."""
    setup = open_setup(given, "train")
    run = RunDirectory(Workspace.at(given.workspace).run(given.run))
    data = load_data(given, setup.stores)
    run.claim(given, run_inputs(given, data.origin))

    def save_then_die(metrics: object, state: object) -> None:
        state.save(run.place / "checkpoints" / "step-00000002-abcd")  # type: ignore[attr-defined]
        raise Killed

    try:
        fit(given, data, directory=run.place, report=save_then_die)
    except Killed:
        return
    raise AssertionError("the run was not killed")
