"""Searches on real Ray Tune: what they choose, what they keep, and that they go on after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
import yaml

from aft_ray.commands.check import open_setup
from aft_ray.recipe.config import Recipe, dump, load, override
from aft_ray.recipe.errors import InputError
from aft_ray.search.best import best_settings, winner
from aft_ray.search.search import plan_search, search
from aft_ray.search.teacher_heads import read_heads
from aft_ray.search.trials import TrialRow, as_table, setting_key
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import load_data
from aft_ray.training.inputs.stores import open_setup as open_samples
from tests.helpers.training import made_workspace, timeless

SHORT = {"steps": 12, "global_batch_size": 20, "evaluate_every": 4, "learning_rate": 0.003}


def place_of(given: Recipe) -> Path:
    return Path(Workspace.at(given.workspace).search(given.run).path)


def read_table(given: Recipe) -> list[TrialRow]:
    return pq.read_table(place_of(given) / "trials.parquet").to_pylist()


def without_times(rows: list[TrialRow]) -> list[TrialRow]:
    return [{key: value for key, value in row.items() if key != "wall_time_s"} for row in rows]


@pytest.mark.ray
def test_a_search_selects_on_validation_and_only_final_runs_see_the_test_split(cluster: None, tmp_path: Path) -> None:
    space = {"train.learning_rate": [0.001, 0.003], "regularizer.learn_gates": [True, False]}
    given = made_workspace(
        tmp_path,
        {
            "train": SHORT,
            "search": {
                "compare": ["none", "aft"],
                "beta": [0.5, 5],
                "space": space,
                "max_concurrent_trials": 2,
                "final": {"seeds": 2, "teacher_heads": True},
            },
        },
    )
    assert len(plan_search(open_setup(given, "search"))) == 2 + 2 * 3 * 4
    rows = search(open_setup(given, "search"))
    assert without_times(read_table(given)) == without_times(as_table(rows).to_pylist())

    searched = [row for row in rows if row["stage"] == "search"]
    finals = [row for row in rows if row["stage"] == "final"]
    assert len(searched) == 2 + 2 * 3 * 4 and len(finals) == 2 * 2
    assert all(row["test_accuracy"] is None for row in searched)
    assert {row["status"] for row in searched} == {"finished", "stopped"}, "ASHA stopped some"
    assert all(row["status"] == "finished" for row in finals) and sorted({row["seed"] for row in finals}) == [1, 2]
    assert all(row["test_accuracy"] is not None and row["val_accuracy"] is None for row in finals)
    best = best_settings(searched, None, open_samples(given).stores["validation"].num_samples)
    assert {setting_key(row) for row in finals} == {choice.key for choice in best.values()}

    assert {head.teacher for head in read_heads(Workspace.at(given.workspace).search(given.run))} == {"one", "two"}

    # A trial is a training of its recipe: the same numbers without Ray, a final run's on train and validation together.
    for row in (searched[0], finals[-1]):
        directory = place_of(given) / "trials" / row["trial"]
        recipe = load(directory / "config.yaml")
        data = load_data(recipe, open_samples(recipe).stores)
        is_final = row["stage"] == "final"
        data = data.with_validation_in_train() if is_final else data
        plain = fit(
            recipe, data, directory=Workspace.at(tmp_path / "plain"), report=lambda m, s: None, evaluate_test=is_final
        )
        lines = [yaml.safe_load(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert timeless(lines) == timeless(plain)[: len(lines)]
        assert not (directory / "checkpoints").exists()

    method, _, _, others = winner(best).key
    written = yaml.safe_load((place_of(given) / "best.yaml").read_text())
    chosen = (written["regularizer"]["name"], written["train"]["learning_rate"])
    assert chosen == (method, dict(others)["train.learning_rate"])

    # The same command again: nothing runs again, and a killed command's state goes. A wider grid: only what is new runs.
    (killed := place_of(given) / "tune-finals-20260101-000000").mkdir()
    stamps = {path: path.stat().st_mtime_ns for path in place_of(given).rglob("metrics.jsonl")}
    assert without_times(search(open_setup(given, "search"))) == without_times(rows)
    assert stamps == {path: path.stat().st_mtime_ns for path in place_of(given).rglob("metrics.jsonl")}
    assert not killed.exists()
    wider = override(given, {"search.beta": [0.5, 5, 50], "search.space": {**space, "train.learning_rate": [0.003]}})
    more = search(open_setup(wider, "search"))
    again = {path: path.stat().st_mtime_ns for path in place_of(given).rglob("metrics.jsonl")}
    assert stamps.items() <= again.items() and len(more) == 1 + 3 * 3 * 2 + 4
    with pytest.raises(
        InputError, match="holds a trial with another train.steps. Give this search a name with run=NAME"
    ):
        search(open_setup(override(given, {"train.steps": 13}), "search"))


@pytest.mark.ray
def test_finalists_alone_get_further_seeds_and_one_of_them_is_chosen(cluster: None, tmp_path: Path) -> None:
    section = {"compare": ["aft"], "beta": [0.5, 5, 50], "teachers": [["one"]], "seeds": 3, "finalists": 2}
    section |= {"scheduler": "none", "max_concurrent_trials": 1, "final": {"seeds": 1}}
    given = made_workspace(tmp_path, {"train": SHORT, "search": section})
    rows = search(open_setup(given, "search"))
    seeds: dict[float, list[int]] = {}
    for row in rows:
        if row["stage"] == "search":
            seeds.setdefault(row["regularizer.beta"], []).append(row["seed"])
    first = {row["regularizer.beta"]: row for row in rows if row["stage"] == "search" and row["seed"] == 0}
    worst = min(first, key=lambda beta: (first[beta]["val_accuracy"], -first[beta]["val_loss"]))
    assert seeds == {beta: [0] if beta == worst else [0, 1, 2] for beta in (0.5, 5, 50)}
    (final,) = (row["regularizer.beta"] for row in rows if row["stage"] == "final")
    assert final != worst
    assert without_times(search(open_setup(given, "search"))) == without_times(rows)


@pytest.mark.ray
def test_a_search_runs_on_a_terminal(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    section = {"compare": ["none"], "scheduler": "none", "final": {"seeds": 1}}
    given = made_workspace(tmp_path, {"train": SHORT | {"steps": 4}, "search": section})
    assert [row["status"] for row in search(open_setup(given, "search"))] == ["finished", "finished"]


@pytest.mark.ray
def test_a_failed_trial_is_a_row_with_its_reason_and_does_not_end_the_search(cluster: None, tmp_path: Path) -> None:
    space = {"train.learning_rate": [1e20, 0.003]}
    weights = os.path.relpath(tmp_path / "resnet.safetensors")  # trials see the directory that the user is in
    given = made_workspace(
        tmp_path,
        {
            "student": {"model": "timm:test_resnet", "weights": weights, "image_size": 32},
            "train": SHORT | {"optimizer": "sgd", "steps": 4},
            "search": {"compare": ["none"], "space": space, "max_concurrent_trials": 1, "final": {"seeds": 1}},
        },
    )
    rows = search(open_setup(given, "search"))
    assert [row["status"] for row in rows] == ["failed", "finished", "finished"]
    assert "Lower train.learning_rate or regularizer.beta" in rows[0]["error"] and rows[0]["val_accuracy"] is None
    assert rows[2]["train.learning_rate"] == 0.003


@pytest.mark.ray
def test_optuna_chooses(cluster: None, tmp_path: Path) -> None:
    search_section: dict[str, Any] = {
        "searcher": "optuna",
        "subsets_as": "bits",
        "num_samples": 2,
        "max_concurrent_trials": 1,
    }
    search_section |= {"compare": ["aft"], "beta": {"min": 0.1, "max": 10}, "final": {"seeds": 0}}
    rows = search(
        open_setup(made_workspace(tmp_path, {"train": SHORT | {"steps": 4}, "search": search_section}), "search")
    )
    assert [row["status"] for row in rows] == ["finished"] * 2
    assert all(0.1 <= row["regularizer.beta"] <= 10 and row["teachers"] for row in rows)


@pytest.mark.ray
def test_a_trial_of_several_workers_is_stopped_where_it_falls_behind(cluster: None, tmp_path: Path) -> None:
    """The first learns, the second does not: ASHA sees that in the evaluations of its workers, and frees what they had.
    The workers of a trial take all the CPUs that there are."""
    search_section: dict[str, Any] = {
        "compare": ["none"],
        "space": {"train.learning_rate": [0.003, 1e-9]},
        "final": {"seeds": 0},
    }
    search_section |= {"workers_per_trial": 2, "cpus_per_trial": 2, "grace_steps": 10}
    train = SHORT | {"steps": 200, "evaluate_every": 5}
    given = made_workspace(tmp_path, {"train": train, "search": search_section})
    rows = search(open_setup(given, "search"))
    assert [row["status"] for row in rows] == ["finished", "stopped"]
    first, second = (place_of(given) / "trials" / row["trial"] / "metrics.jsonl" for row in rows)
    assert len(first.read_text().splitlines()) == 40
    assert 2 <= len(second.read_text().splitlines()) < 40
    deadline = time.monotonic() + 30
    while ray.available_resources()["CPU"] < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)  # a node tells what it has now and then


@pytest.mark.ray
def test_a_population_trains_on_with_the_weights_of_its_best(cluster: None, tmp_path: Path) -> None:
    given = made_workspace(
        tmp_path,
        {
            "train": SHORT | {"steps": 24, "evaluate_every": 4},
            "search": {
                "compare": ["aft"],
                "teachers": "singles",
                "beta": {"min": 0.1, "max": 10},
                "space": {"train.learning_rate": {"min": 1e-6, "max": 1e-2}},
                "searcher": "random",
                "scheduler": "pbt",
                "grace_steps": 4,
                "num_samples": 4,
                "max_concurrent_trials": 2,
                "final": {"seeds": 0},
            },
        },
    )
    rows = search(open_setup(given, "search"))
    assert [row["status"] for row in rows] == ["finished"] * 4
    moved = [row for row in rows if not row["trial"].startswith(f"search-aft-beta{row['regularizer.beta']:g}-")]
    assert moved, "none took over another's weights"
    assert all(0.1 <= row["regularizer.beta"] <= 10 for row in rows)
    best = winner(best_settings(rows, None, open_samples(given).stores["validation"].num_samples))
    assert load(place_of(given) / "best.yaml").train.learning_rate == dict(best.key[3])["train.learning_rate"]


KILLED = """
import sys, ray
from aft_ray.commands.environment import set_environment
set_environment()
from aft_ray.commands.check import open_setup
from aft_ray.recipe.config import load
from aft_ray.search.search import search
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
search(open_setup(load(sys.argv[1]), "search"))
"""


def interrupt_at(file: Path) -> None:
    """Ctrl-C, as soon as `file` is there."""
    while not file.exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.ray
def test_an_interrupted_and_then_killed_search_ends_with_the_table_of_an_undisturbed_one(
    cluster: None, tmp_path: Path
) -> None:
    given = made_workspace(
        tmp_path,
        {
            "train": SHORT | {"steps": 90, "evaluate_every": 6},
            "search": {
                "compare": ["none", "aft"],
                "beta": [10],
                "teachers": "singles",
                "max_concurrent_trials": 1,
                "checkpoint_every_s": 0,
                "final": {"seeds": 1, "train_on": "train"},
            },
        },
    )
    undisturbed = search(open_setup(override(given, {"run": "undisturbed"}), "search"))
    trials = place_of(given) / "trials"
    Thread(target=interrupt_at, args=(trials / undisturbed[1]["trial"] / "metrics.jsonl",), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        search(open_setup(given, "search"))
    assert not [*trials.glob("final-*")], "the best of half a search was trained anew"
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(given))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], start_new_session=True, stderr=subprocess.PIPE
    )
    third = trials / undisturbed[2]["trial"]
    deadline = time.monotonic() + 300
    while not list(third.glob("checkpoints/*/checkpoint.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    partly = read_table(given) if (place_of(given) / "trials.parquet").exists() else []
    assert len(partly) < len(undisturbed)
    stamps = {p: p.stat().st_mtime_ns for p in place_of(given).rglob("outcome.json")}

    rows = search(open_setup(given, "search"))
    assert stamps.items() <= {p: p.stat().st_mtime_ns for p in place_of(given).rglob("outcome.json")}.items()
    assert without_times(rows) == without_times(undisturbed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search.compare": ["atf"]}, "Unknown regularizer 'atf'"),
        ({"search.space": {"train.stepps": [1]}}, "Unknown key 'train.stepps'. Did you mean 'steps'?"),
        ({"search.space": {"student.model": ["tiny:cn"]}}, "search.space, student.model=tiny:cn: "),
        ({"search.space": {"student.image_size": {"min": 8, "max": 64}}, "search.searcher": "random"}, "num_samples"),
        ({"search.compare": ["rkd"], "search.space": {"regularizer.learn_gates": [True]}}, "which is no key of rkd"),
        ({"search.finalists": 2}, "finalists get further seeds, and seeds is 1"),
        ({"search.finalists": 2, "search.seeds": 3, "search.final.of": "setting"}, "so there are no finalists"),
        ({"search.gpus_per_trial": 1.5}, "take a share of one GPU or whole GPUs"),
        ({"train.use_gpu": True, "search.gpus_per_trial": 0}, "train.use_gpu asks for a GPU"),
    ],
)
def test_faults_are_found_before_anything_starts(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = made_workspace(tmp_path)
    with pytest.raises(InputError) as raised:
        search(open_setup(override(given, changes), "search"))
    assert message in str(raised.value)


def test_a_teacher_without_features_is_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    given = made_workspace(tmp_path)
    first = given.model_dump(mode="json")["teachers"]
    other = [*first, {**first[0], "name": "new"}]
    with pytest.raises(InputError, match="aft-ray extract"):
        plan_search(open_setup(override(given, {"teachers": other, "search.teachers": [["one", "new"]]}), "search"))


def test_settings_are_compared_by_the_mean_over_their_seeds() -> None:
    def row(beta: float, accuracy: float, loss: float) -> TrialRow:
        fixed = {"stage": "search", "regularizer.name": "aft", "teachers": ["a"], "status": "finished", "step": 1}
        return {**fixed, "regularizer.beta": beta, "val_accuracy": accuracy, "val_loss": loss}

    rows = [row(1, 0.9, 0.5), row(1, 0.5, 0.5), row(2, 0.8, 0.9), row(2, 0.7, 0.9)]
    assert best_settings(rows, None)["aft"].key[1] == 2
    assert best_settings(rows, "val_loss")["aft"].key[1] == 1
