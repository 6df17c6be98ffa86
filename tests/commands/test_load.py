"""Times that were estimated on a busy machine say so."""

from __future__ import annotations

import pytest

from aft_ray.commands.load import busy_line, show_if_busy


def test_a_busy_machine_says_how_far_times_may_be_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert busy_line(2.0, 2) == busy_line(0.1, 1) == ""
    assert busy_line(14.2, 2).startswith("busy      14 processes want 2 cores now: ") and "8 times" in busy_line(
        14.2, 2
    )


def test_the_line_is_printed_where_times_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("os.getloadavg", lambda: (9.0, 1.0, 1.0), raising=False)
    show_if_busy()
    assert capsys.readouterr().out.startswith("busy ")
