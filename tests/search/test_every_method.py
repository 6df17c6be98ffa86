"""Every method that can be listed goes all the way: searched, its final run, its best setting trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.commands.check import open_setup
from aft_ray.recipe.config import load, override
from aft_ray.regularizers import REGULARIZERS
from aft_ray.search.search import search
from aft_ray.store.workspace import Workspace
from aft_ray.training.runs import RunDirectory
from aft_ray.training.train import train
from tests.helpers.training import made_workspace

METHODS = [*REGULARIZERS, "tests.helpers.own_regularizers:Means"]
FITTED = ["btune", "aft_probe"]
SHORT = {"steps": 2, "global_batch_size": 20, "evaluate_every": 1}
SEARCH = {
    "beta": [0.5],
    "teachers": [["one", "two"]],
    "scheduler": "none",
    "max_concurrent_trials": 1,
    "final": {"seeds": 1},
}


@pytest.mark.ray
def test_every_method_is_searched(cluster: None, tmp_path: Path) -> None:
    given = made_workspace(tmp_path, {"train": SHORT, "search": {**SEARCH, "compare": METHODS}})
    rows = search(open_setup(given, "search"))
    reasons = {row["regularizer.name"]: row["error"] for row in rows if row["status"] != "finished"}
    assert reasons == {}
    for stage in ("search", "final"):
        assert [row["regularizer.name"] for row in rows if row["stage"] == stage] == METHODS


@pytest.mark.ray
@pytest.mark.parametrize("method", FITTED)
def test_a_method_that_is_fitted_to_the_data_is_trained_and_wins(method: str, cluster: None, tmp_path: Path) -> None:
    given = made_workspace(tmp_path, {"train": SHORT, "search": {**SEARCH, "compare": [method], "final": {"seeds": 0}}})
    run = train(open_setup(override(given, {"regularizer.name": method}), "train"))
    assert RunDirectory(run).is_finished
    search(open_setup(given, "search"))
    best = load(Path(Workspace.at(given.workspace).search(given.run).path) / "best.yaml")
    assert best.regularizer.name == method
    history = RunDirectory(train(open_setup(best, "train"))).history()
    assert history[-1]["regularization"] > 0
