"""A ratio that falls below its floor is measured again, and fails the second time only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.benchmarks import floors
from jobs.benchmarks.floors import FLOORS, Floor, holds


def of(*ratios: float) -> tuple[Floor, Iterator[float]]:
    left = iter(ratios)
    return Floor("speed", "ours by theirs", 1.0, 0.7, lambda folder: next(left)), left


@pytest.mark.parametrize(
    ("ratios", "held", "left"), [((0.9, 0.1), True, [0.1]), ((0.5, 0.9), True, []), ((0.5, 0.6, 0.9), False, [0.9])]
)
def test_only_two_falls_fail(tmp_path: Path, ratios: tuple[float, ...], held: bool, left: list[float]) -> None:
    floor, rest = of(*ratios)
    assert holds(floor, tmp_path, 0) is held and list(rest) == left


def test_a_fall_is_named_and_ends_with_status_1_but_measuring_alone_never_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, status in (((), 1), (("--tries", "2"), 0)):
        monkeypatch.setattr(floors, "FLOORS", (of(0.5, 0.6)[0],))
        monkeypatch.setattr(sys, "argv", ["floors.py", *more])
        assert floors.main() == status
        shown = capsys.readouterr()
        assert "| ours by theirs | 0.50, 0.60 |" in shown.out and ("speed" in shown.err) is (status == 1)


def test_every_floor_leaves_room_for_noise_below_its_measured_value() -> None:
    assert {floor.name for floor in FLOORS} == {"extraction", "training", "aft", "loss"}
    assert all(0 < floor.floor < 0.9 * floor.measured for floor in FLOORS)
