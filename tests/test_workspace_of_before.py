"""A workspace that the code of 2026-11-27 wrote is read, verified and continued.

It holds samples, features, a finished run `main`, the same run as `cut`, killed after step 4 of 6, and a search of two trials
of which one is done. Its raw pictures are gone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aft_ray import cli
from aft_ray.commands.check import open_setup
from aft_ray.export import load_student
from aft_ray.recipe.config import Recipe, override
from aft_ray.search.search import search
from aft_ray.store import open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.runs import RunDirectory
from aft_ray.training.train import train

SEARCH = {
    "student.model": "tiny:cnn",
    "student.image_size": 8,
    "regularizer.name": "aft",
    "search": {"compare": ["aft"], "beta": [1, 3], "scheduler": "none", "final": {"seeds": 0}},
}


def runs(recipe: Recipe, name: str) -> RunDirectory:
    return RunDirectory(Workspace.at(recipe.workspace).run(name))


def test_it_is_verified_and_read(before: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", before.workspace]) == 0
    said = capsys.readouterr().out
    assert "6 directories of shards, 2 runs, 1 trial, 1 search read: 0 faults" in said
    assert "train/manifest.json is of before and has no digest: the names of its classes cannot be checked." in said
    assert "runs/main is of before: whether its files belong together cannot be checked." in said
    store = open_store(before.workspace, "train", ["lite0"])
    shard = store.read_shard(0)
    assert shard["features"].shape == (8, 1280) and np.isfinite(shard["features"]).all()
    assert load_student(runs(before, "main").place).classes == ["dark", "light"]
    assert open_setup(before, "rank").stores["train"].num_samples == 26


def test_its_damage_is_found(before: Recipe) -> None:
    shard = Path(before.workspace, "features", "lite0", "train", "part-00001.parquet")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert cli.main(["verify", before.workspace]) == 1


@pytest.mark.ray
def test_its_finished_run_stays_and_its_killed_run_ends_like_it(before: Recipe, cluster: None) -> None:
    main = runs(before, "main")
    history = main.history()
    train(open_setup(before, "train"))
    assert main.history() == history
    train(open_setup(override(before, {"run": "cut"}), "train"))
    ended = runs(before, "cut").history()
    assert [line["step"] for line in ended] == [2, 4, 6]
    for key in ("loss", "val_loss", "test_loss", "test_accuracy"):
        assert ended[-1][key] == pytest.approx(history[-1][key], rel=1e-5)


@pytest.mark.ray
def test_its_search_runs_the_missing_trial_alone(before: Recipe, cluster: None) -> None:
    trial = Path(before.workspace, "searches", "main", "trials", "search-aft-beta1-lite0-seed0", "metrics.jsonl")
    told = trial.read_text()
    rows = search(open_setup(override(before, SEARCH), "search"))
    assert [(row["regularizer.beta"], row["status"]) for row in rows] == [(1.0, "finished"), (3.0, "finished")]
    assert trial.read_text() == told
    assert rows[0]["val_loss"] in [json.loads(line)["val_loss"] for line in told.splitlines()]
