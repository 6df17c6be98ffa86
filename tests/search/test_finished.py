"""A search that is over, run again: it shows its table, starts no cluster, decodes no sample and reads no features."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from aft_ray.cli import main
from aft_ray.commands.check import open_setup
from aft_ray.commands.functions import verbs
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.recipe.errors import InputError
from aft_ray.search import teacher_heads, trial_data
from aft_ray.search.search import search
from aft_ray.search.trials import TrialRow
from aft_ray.store.schema import UNLABELED
from jobs.benchmarks.fuzz_without_ray import without_ray
from tests.helpers.training import DATA, VALIDATION, made_workspace

pytestmark = pytest.mark.slow

CHANGES = {
    "train": {"steps": 4, "evaluate_every": 2, "global_batch_size": 16, "learning_rate": 0.003},
    "search": {
        "compare": ["none", "aft"],
        "beta": [1, 3],
        "teachers": [["one"], ["two"]],
        "seeds": 2,
        "finalists": 1,
        "scheduler": "none",
        "final": {"seeds": 1, "teacher_heads": True},
    },
}


def never(*given: Any, **named: Any) -> NoReturn:
    raise AssertionError("a cluster was started, or samples or features were read")


class Counted:
    """A cluster that notes its starts and ends."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.told.append("start")
        yield
        self.told.append("end")


def finished(given: Recipe, cluster: Any = Counted) -> list[TrialRow]:
    """Runs what is missing of the search, with the trials in this process."""
    with without_ray():
        return search(open_setup(given, "search"), cluster=cluster())


def files_of(given: Recipe) -> dict[str, bytes]:
    place = Path(given.workspace, "searches", given.run)
    return {name: (place / name).read_bytes() for name in ("best.yaml", "trials.parquet", "teacher_heads.parquet")}


def test_it_needs_no_cluster_and_no_data_for_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = made_workspace(tmp_path / "work", CHANGES)
    rows, files = finished(given), files_of(given)
    assert {row["stage"] for row in rows} == {"search", "final"}
    monkeypatch.setattr(trial_data, "load_data", never)
    monkeypatch.setattr(teacher_heads, "heads_on_test", never)
    assert search(open_setup(given, "search"), cluster=never) == rows
    assert files_of(given) == files

    monkeypatch.setattr("aft_ray.commands.search.ray_cluster", never)
    monkeypatch.setattr("aft_ray.commands.functions.verbs.ray_cluster", never)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(given))
    assert main(["search", str(recipe)]) == 0
    assert "Methods compared" in capsys.readouterr().out
    assert len(verbs.search(given).trials()) == len(rows)
    assert files_of(given) == files


@pytest.mark.parametrize("stage", ["search", "final"])
def test_a_trial_that_is_missing_in_any_round_starts_the_cluster_once(tmp_path: Path, stage: str) -> None:
    given = made_workspace(tmp_path, CHANGES)
    rows, cluster = finished(given), Counted()
    lost = [row["trial"] for row in rows if row["stage"] == stage]
    for name in lost:
        shutil.rmtree(tmp_path / "searches" / given.run / "trials" / name)
    again = finished(given, lambda: cluster)
    assert cluster.told == ["start", "end"]
    assert [row["val_loss"] for row in again] == [row["val_loss"] for row in rows]
    assert [row["test_loss"] for row in again] == [row["test_loss"] for row in rows]


def test_a_fault_of_the_samples_is_told_before_a_directory_is_claimed(tmp_path: Path) -> None:
    unlabelled = replace(VALIDATION, labels=np.full(len(VALIDATION), UNLABELED))
    given, cluster = made_workspace(tmp_path, CHANGES, replace(DATA, validation=unlabelled)), Counted()
    given = override(given, {"search.final.teacher_heads": False})
    with pytest.raises(InputError, match="No sample of the validation split has a label"):
        finished(given, lambda: cluster)
    assert not (tmp_path / "searches" / given.run / "trials").exists()


def test_it_streams_its_samples_as_its_trials_did_whatever_room_there_is_now(tmp_path: Path) -> None:
    given = made_workspace(tmp_path, CHANGES)
    given = override(given, {"train.streaming": True, "search.final.train_on": "train"})
    rows = finished(given)
    undecided = override(given, {"train.streaming": None})
    assert search(open_setup(undecided, "search"), cluster=never) == rows
