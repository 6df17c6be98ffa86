"""What a search hands to Tune, without a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from aft_ray.cluster.progress import Progress
from aft_ray.recipe.config import load, override
from aft_ray.search.space import Setting, Trial
from aft_ray.search.trials import TrialDirectory
from aft_ray.search.tuning import _name, _Proposer, _Recorder
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import TrainingState
from aft_ray.training.provenance import run_inputs
from tests.helpers import ROOT
from tests.helpers.training import recipe


def test_a_search_runs_more_trials_at_once_when_nodes_join(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"CPU": 1.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    trials = [SimpleNamespace(to_json=lambda name=name: name) for name in "abcdef"]
    told: list[Any] = []
    given = load(ROOT / "jobs" / "recipes" / "demo.yaml", ["search.max_concurrent_trials=4", "search.cpus_per_trial=1"])
    shared: Any = SimpleNamespace(recipe=given)
    of: Any = SimpleNamespace(shared=shared, next=lambda: trials.pop(0) if trials else None, tell=told.append)
    proposer = _Proposer(of, of.next())

    def asked() -> list[str | None]:
        """The trials that Tune gets when it asks until it gets none. It asks with a new name each time."""
        found: list[str | None] = []
        while isinstance(answer := proposer.suggest(f"{len(proposer.trials)}"), dict):
            found.append(answer["trial"])
        return [*found, answer]

    assert asked() == ["a", None]
    there["CPU"] = 2.0
    assert asked() == ["b", None]
    there["CPU"] = 9.0
    assert asked() == ["c", "d", None], "at most four at once"
    there["CPU"] = 0.0  # all nodes are gone, perhaps for a moment
    assert asked() == [None]
    for number in range(4):
        proposer.on_trial_complete(str(number))
    assert len(told) == 4 and asked() == ["e", None]
    there["CPU"] = 9.0
    assert asked() == ["f", proposer.FINISHED]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "its process died"),
        (MemoryError(), "MemoryError"),
        (
            RuntimeError("ray::run_trial()\nPermissionError: s3 refuses api_key=abcdef0123456789."),
            "refuses api_key=***",
        ),
    ],
)
def test_a_trial_whose_process_died_is_recorded_with_a_reason_and_without_secrets(
    error: Exception | None, reason: str
) -> None:
    told: list[tuple[str, str, str]] = []
    shared = SimpleNamespace(recipe=SimpleNamespace(run="main"))
    of: Any = SimpleNamespace(over=lambda *facts: told.append(facts), title="search", shared=shared)
    trial = SimpleNamespace(custom_trial_name="search-a", get_error=lambda: error)
    _Recorder(of, Progress("search", 1, "trials")).on_trial_error(1, [], trial)
    ((name, status, found),) = told
    assert (name, status) == ("search-a", "failed") and found.endswith(reason)


def test_a_trial_of_a_population_goes_on_with_the_setting_of_its_last_checkpoint(tmp_path: Path) -> None:
    trial = Trial("search", Setting("aft", 2.0, ("one",), (("train.learning_rate", 0.01),)), 7)
    directory = TrialDirectory(Workspace.at(tmp_path / trial.name))
    assert directory.as_saved(trial) == trial
    taken = recipe("aft", learning_rate=0.02)
    taken = override(taken, {"regularizer.beta": 5.0, "teachers": [{"name": "two", "model": "timm:two"}]})
    state = TrainingState(8, [], run_inputs(taken, {}), {}, {}, {})
    directory.save(state)
    expected = Trial("search", Setting("aft", 5.0, ("two",), (("train.learning_rate", 0.02),)), 7)
    assert directory.as_saved(trial) == expected
    config = {"trial": expected.to_json() | {"name": trial.name}}
    assert _name(SimpleNamespace(config=config)) == trial.name, "its directory keeps the name that it was given"
    directory.save(replace(state, step=4))  # taken over from a trial that is not as far
    (kept,) = directory.checkpoints()
    assert kept.path.rpartition("/")[2].startswith("step-00000004-")
