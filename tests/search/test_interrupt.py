"""Ctrl-C while Ray Tune runs, with Tune's own handler of SIGINT and without a cluster."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.tune import _setup_signal_catching

from aft_ray.recipe.config import load
from aft_ray.recipe.errors import ClusterError
from aft_ray.search.interrupt import interrupted_by_ctrl_c
from aft_ray.search.rounds import Round
from aft_ray.search.search import _run
from tests.helpers import ROOT


@pytest.fixture(autouse=True)
def other_signals() -> Iterator[None]:
    """Tune's handler of SIGUSR1 goes with the test."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_that_tune_takes_for_itself_is_raised_when_tune_returns() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupted_by_ctrl_c():
        told = _setup_signal_catching()
        signal.raise_signal(signal.SIGINT)
        assert told.is_set()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_next_ctrl_c_is_not_swallowed_by_tune_that_has_ended() -> None:
    with interrupted_by_ctrl_c():
        told = _setup_signal_catching()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not told.is_set()


def test_where_tune_leaves_sigint_alone_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "1")
    with interrupted_by_ctrl_c():
        _setup_signal_catching()


def test_trials_that_tune_gives_up_are_no_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: dict[str, Any] = {"a": {"status": "finished"}, "b": None, "c": None}
    recipe = load(ROOT / "jobs" / "recipes" / "demo.yaml", ["search.scheduler=none"])
    directories = {name: SimpleNamespace(outcome=lambda found=found: found) for name, found in outcomes.items()}
    shared: Any = SimpleNamespace(recipe=recipe, place="work/searches/one", directory=directories.get)
    monkeypatch.setattr(Round, "next", lambda self: "a")
    monkeypatch.setattr("aft_ray.search.tuning.run_trials", lambda of, first: of.names.extend(outcomes))
    unused: Any = None
    with pytest.raises(ClusterError, match="2 of 3 trials had not ended, the first b.*runs these trials again"):
        _run(Round(shared, unused, unused, [], "search", []))
