"""Errors of libraries as one line of ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aft_ray.recipe.errors import in_a_line
from tests.helpers import ROOT


@pytest.mark.parametrize("error", [MemoryError(), TimeoutError(), ValueError("\n  \n")])
def test_an_error_without_a_text_is_named_by_its_class(error: Exception) -> None:
    assert in_a_line(error) == in_a_line(error, last=True) == type(error).__name__


def test_one_line_of_a_longer_text_is_shown_without_its_full_stop() -> None:
    error = RuntimeError("\nIt failed.\n  at somewhere\nBecause of this.\n")
    assert (in_a_line(error), in_a_line(error, last=True)) == ("It failed", "Because of this")


def test_nobody_takes_the_first_line_of_an_empty_text() -> None:
    """`str(error).splitlines()[0]` raises IndexError there, which hides the error."""
    found = [
        str(path.relative_to(ROOT))
        for path in Path(ROOT / "aft_ray").rglob("*.py")
        if re.search(r"splitlines\(\)\[-?\d", path.read_text(encoding="utf-8"))
    ]
    assert found == []
