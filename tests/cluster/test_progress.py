"""The lines of progress in a job's log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from aft_ray.cluster.progress import Progress, _bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that progress reads; a test moves them on."""
    seconds = [100.0]
    monkeypatch.setattr("aft_ray.cluster.progress.time.monotonic", lambda: seconds[0])
    return seconds


def test_a_log_has_a_line_when_work_begins_and_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("search", 2, "trials") as progress:
        assert capsys.readouterr().err == "search: 0/2 trials\n"
        progress.advance(1, "best 0.500: none")
        progress.advance(1, "best 0.750: aft, beta 3")
    assert capsys.readouterr().err == "search: 2/2 trials, 0 s left  best 0.750: aft, beta 3\n"


def test_nothing_to_do_is_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("prepare", 0, "shards"):
        pass
    assert capsys.readouterr().err == ""


def test_the_time_left_is_told_inside_the_first_unit(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Progress("extract", 2, "shards") as progress, progress.following(lambda: 0.0):
        for seconds, part in ((45.0, 0.1), (10.0, 0.2), (10.0, 0.15), (10.0, 0.4)):
            clock[0] += seconds
            progress.begun(part)
        clock[0] += 10.0
        progress.advance(1, "lite0")
    assert capsys.readouterr().err.splitlines() == [
        "extract: 0/2 shards",  # while models are loaded no speed is known
        "extract: 0/2 shards, 180 s left",
        "extract: 0/2 shards, 160 s left",
        "extract: 1/2 shards, 44 s left  lite0",
    ]


def test_the_time_before_the_first_unit_does_not_count(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Progress("extract", 1000, "shards") as progress, progress.following(lambda: 0.0):
        for seconds, shards in ((20.0, 1), (10.0, 99)):
            clock[0] += seconds
            progress.advance(shards)
    assert capsys.readouterr().err.splitlines() == [
        "extract: 0/1000 shards",
        "extract: 100/1000 shards, 91 s left",
    ]


def test_a_training_s_start_does_not_count(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Progress("train", 200, "steps") as progress:
        for _ in range(3):
            clock[0] += 12.0
            progress.advance(50, "loss 1.000", seconds=3.0)
    assert capsys.readouterr().err.splitlines() == [
        "train: 0/200 steps",
        "train: 50/200 steps, 9 s left  loss 1.000",
        "train: 100/200 steps, 15 s left  loss 1.000",  # the clock counts what is done beside the steps
        "train: 150/200 steps, 9 s left  loss 1.000",
    ]


def test_units_done_before_do_not_shorten_the_time_left(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with Progress("search", 12, "trials", done=8) as progress:
        clock[0] += 20.0
        progress.advance(1)
    assert capsys.readouterr().err.splitlines() == ["search: 8/12 trials", "search: 9/12 trials, 60 s left"]


def test_work_is_followed_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aft_ray.cluster.progress.FOLLOWED_EVERY_S", 0.01)
    parts = [0.25, 0.5]
    with Progress("extract", 1, "shards") as progress, progress.following(lambda: parts.pop(0) if parts else 0.5):
        while progress.part < 0.5:
            pass
    assert not parts and progress.done == 0


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_short_terminal_cuts_the_note_and_not_the_counts(width: int) -> None:
    shown = io.StringIO()
    bar = _bar("extract", "shards", Console(file=shown, width=width, force_terminal=True, color_system=None))
    task = bar.add_task("extract", total=1027, note="lite0 192/s 100 % busy  mobilenet 217/s 95 % busy  lite2 186/s")
    bar.update(task, completed=15)
    bar.console.print(bar.get_renderable())
    (line,) = shown.getvalue().splitlines()
    assert len(line.rstrip()) <= width and " 15/1027 shards " in line and "-:--:-- lite0" in line
    assert ("…" in line) == (width < 160)
