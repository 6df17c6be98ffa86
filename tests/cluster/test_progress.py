"""The lines of progress in a job's log."""

from __future__ import annotations

import pytest

from aft_ray.cluster.progress import Progress


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
