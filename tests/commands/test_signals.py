"""Signals to a training: it saves, says so, ends with 1, leaves no process behind, and goes on with the same command."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from aft_ray.commands.signals import signals_as_before, take_signals
from tests.helpers.long_training import long_training


class Interrupted:
    """Its finalizer is at work when Ctrl-C comes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize("ignored", [False, True], ids=["in a terminal", "as a shell's background job"])
def test_an_interrupt_that_comes_in_a_finalizer_is_not_lost(ignored: bool, request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    number = signal.SIGTERM if ignored else signal.SIGINT
    with signals_as_before():
        take_signals()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            Interrupted(number)  # gone at once
            time.sleep(10)
        assert time.monotonic() - started < 5


@pytest.mark.processes
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_training_with_a_checkpoint_a_line_and_no_process(name: str, tmp_path: Path) -> None:
    """A training of two workers: tests/training/test_process_group.py."""
    with long_training(tmp_path, "train.num_workers=1") as training:
        training.check_ends_with(signal.Signals[name])
