from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from aft_ray.config import InputError, Recipe, override, teacher_subsets
from aft_ray.extract import extract
from aft_ray.prepare import prepare
from aft_ray.search import ROW_SCHEMA, Trial, _AshaPerMethod, plan_trials, search
from aft_ray.store import Workspace
from tests.test_extract import recipe as extract_recipe


def planned(**section: object) -> Recipe:
    return Recipe.model_validate(
        {
            "workspace": "w",
            "dataset": {"name": "mnist5k"},
            "student": {"model": "tiny:cnn"},
            "teachers": [{"name": name, "model": f"timm:{name}"} for name in ("a", "b", "c")],
            "search": section,
        }
    )


def test_all_subsets_are_every_combination_in_the_recipe_s_order() -> None:
    subsets = teacher_subsets(planned())
    assert subsets == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]
    assert teacher_subsets(planned(teachers=[["c", "a"], ["b"]])) == [("a", "c"), ("b",)]


def test_the_grid_is_betas_times_subsets_per_method_and_standard_transfer_once() -> None:
    trials = plan_trials(planned(compare=["none", "kd", "aft"], beta={"kd": [1], "all": [2, 3]}))
    assert sum(trial.method == "none" for trial in trials) == 1
    assert {trial.beta for trial in trials if trial.method == "kd"} == {1}
    assert sum(trial.method == "kd" for trial in trials) == 7 and sum(trial.method == "aft" for trial in trials) == 14
    assert len({trial.name for trial in trials}) == len(trials)


def test_num_samples_draws_from_the_grid_reproducibly() -> None:
    given = planned(compare=["none", "aft"], beta=[1, 2, 3], num_samples=5)
    drawn = plan_trials(given)
    assert len(drawn) == 1 + 5 and drawn == plan_trials(given)


def test_a_trial_s_recipe_has_its_values_and_its_teachers_only() -> None:
    base = planned(compare=["none", "aft"], teachers=[["a"], ["b", "c"]])
    base = override(base, {"regularizer.learn_gates": False, "train.num_workers": 2})
    recipe = Trial("final", "aft", 7.0, ("b", "c"), 5).recipe(base)
    assert recipe.teacher_names() == ("b", "c")
    assert (recipe.regularizer.beta, recipe.train.seed, recipe.train.num_workers) == (7.0, 5, 1)
    assert recipe.regularizer.options == {"learn_gates": False}
    assert Trial("final", "kd", 7.0, ("b",), 5).recipe(base).regularizer.options == {}


@pytest.mark.ray
def test_a_search_selects_on_validation_and_only_final_runs_see_the_test_split(
    cluster: None, tmp_path: Path, image_folder: Path
) -> None:
    given = override(
        extract_recipe(tmp_path, image_folder, "efficientnet", "resnet"),
        {
            "train": {"steps": 12, "global_batch_size": 8, "evaluate_every": 4, "labels_per_class": 3},
            "search": {"compare": ["none", "aft"], "beta": [0.5, 5], "final_seeds": 2},
        },
    )
    prepare(given)
    extract(given)
    rows = search(given)

    searched = [row for row in rows if row["stage"] == "search"]
    finals = [row for row in rows if row["stage"] == "final"]
    assert len(searched) == 1 + 2 * 3 and len(finals) == 2 * 2
    assert all(row["test_accuracy"] is None for row in searched)
    assert all(row["test_accuracy"] is not None and row["status"] == "finished" for row in finals)
    assert {row["status"] for row in searched} <= {"finished", "stopped"}
    best = max((row for row in searched if row["regularizer.name"] == "aft"), key=lambda row: row["val_accuracy"])
    for row in finals:
        if row["regularizer.name"] == "aft":
            assert (row["regularizer.beta"], row["teachers"]) == (best["regularizer.beta"], best["teachers"])
    assert sorted({row["seed"] for row in finals}) == [1, 2]

    place = Workspace.at(given.workspace).search(given.run)
    table = pq.read_table(io.BytesIO(place.read("trials.parquet")))
    assert table.schema.equals(ROW_SCHEMA) and table.to_pylist() == rows
    assert yaml.safe_load(place.read("best.yaml"))["regularizer"]["name"] in ("none", "aft")

    # The same command again: nothing that was finished runs again, and the table is the same.
    stamps = {path: path.stat().st_mtime_ns for path in Path(place.path).rglob("student.json")}
    again = search(given)
    assert stamps.items() <= {path: path.stat().st_mtime_ns for path in Path(place.path).rglob("student.json")}.items()
    assert [row["trial"] for row in again] == [row["trial"] for row in rows]


@pytest.mark.ray
def test_a_failed_trial_is_a_row_with_its_reason_and_does_not_end_the_search(
    cluster: None, tmp_path: Path, image_folder: Path
) -> None:
    given = override(
        extract_recipe(tmp_path, image_folder, "efficientnet"),
        {
            "train": {"steps": 4, "global_batch_size": 8, "optimizer": "sgd", "learning_rate": 1e20},
            "search": {"compare": ["none", "aft"], "beta": [1], "final_seeds": 1},
        },
    )
    prepare(given)
    extract(given)
    rows = search(given)
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert all("Lower train.learning_rate or regularizer.beta" in row["error"] for row in rows)


def test_faults_are_found_before_anything_starts(tmp_path: Path) -> None:
    given = override(planned(), {"workspace": str(tmp_path), "teachers": ["timm:test_vit"], "search.compare": ["atf"]})
    with pytest.raises(InputError, match="Unknown regularizer 'atf'"):
        search(given)


def test_asha_compares_trials_of_one_method_only() -> None:
    class FakeTrial:
        def __init__(self, name: str, method: str) -> None:
            self.trial_id, self.config, self.status = name, {"trial": {"method": method}}, "RUNNING"

    scheduler = _AshaPerMethod(steps=30)
    slow, slower, fast = FakeTrial("slow", "kd"), FakeTrial("slower", "kd"), FakeTrial("fast", "aft")
    decisions = {}
    for trial, accuracy in ((fast, 0.9), (slow, 0.2), (slower, 0.1)):
        scheduler.on_trial_add(None, trial)
        result = {"step": 10, "training_iteration": 1, "score": accuracy}
        decisions[trial.trial_id] = scheduler.on_trial_result(None, trial, result)
    assert decisions == {"fast": "CONTINUE", "slow": "CONTINUE", "slower": "STOP"}
