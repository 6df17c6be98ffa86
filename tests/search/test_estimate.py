from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.commands.check import open_setup
from aft_ray.recipe.config import override
from aft_ray.search.check import num_trials
from aft_ray.search.estimate import estimate_search, num_finals, num_of_finalists
from aft_ray.search.search import plan_search
from aft_ray.training import train
from aft_ray.training.inputs import data
from tests.helpers.training import made_workspace


def test_a_dry_run_counts_trials_and_their_time_and_writes_nothing(tmp_path: Path) -> None:
    section = {"compare": ["none", "aft"], "beta": [1, 2], "seeds": 2, "final": {"seeds": 3}}
    given = made_workspace(tmp_path, {"search": section, "train.steps": 100, "train.evaluate_every": 50})
    before = sorted(tmp_path.rglob("*"))
    plan = estimate_search(open_setup(given, "search"))
    assert sorted(tmp_path.rglob("*")) == before
    assert plan.per_method() == {"none": 2, "aft": 2 * 2 * 3} and plan.num_final == 6
    of_teachers = override(given, {"search.final.of": "teachers"})
    assert num_finals(of_teachers, plan.trials) == 3 * (1 + 3)
    assert num_finals(override(given, {"search.final.of": "setting"}), plan.trials) == 3 * (1 + 2 * 3)
    raced = override(given, {"search.seeds": 3, "search.finalists": 1})
    assert len(plan_search(open_setup(raced, "search"))) == 1 + 2 * 3 and num_of_finalists(raced, plan.trials) == 2 * 2
    assert num_trials(raced) == 1 + 2 * 3 + 2 * 2
    assert plan.step_s > 0 and plan.evaluation_s > 0
    per_run = 100 * plan.step_s + 2 * plan.evaluation_s
    assert abs(plan.hours * 3600 / ((14 + 6) * per_run) - 1) < 1e-9


def test_a_dry_run_streams_samples_that_have_no_room_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = made_workspace(tmp_path, {"search": {"compare": ["none"], "final": {"seeds": 0}}})
    monkeypatch.setattr(train, "nodes_resources", lambda: [{"CPU": 1.0, "memory": 1000.0}])
    monkeypatch.setattr(data, "load_split", None)  # reads the whole split
    assert estimate_search(open_setup(given, "search")).step_s > 0
