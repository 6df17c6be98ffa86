from __future__ import annotations

import pytest
from PIL import UnidentifiedImageError

from aft_ray.recipe.errors import InputError
from aft_ray.store.quarantine import check_quarantined, quarantined_sample


def test_a_reason_is_one_line() -> None:
    assert quarantined_sample("a", UnidentifiedImageError("x"))["reason"] == "it is not a picture"
    assert quarantined_sample("a", OSError("two\nlines."))["reason"] == "two lines"
    assert quarantined_sample("a", ValueError(""))["reason"] == "ValueError"


def test_more_than_allowed_are_listed_with_the_way_out() -> None:
    bad = [quarantined_sample(f"s{index}", OSError("gone")) for index in range(120)]
    check_quarantined(bad, 120)
    with pytest.raises(InputError) as caught:
        check_quarantined(bad, 2)
    assert caught.value.faults[0] == "Sample s0 cannot be read: gone."
    assert caught.value.faults[-2] == "... and 20 more samples."
    assert caught.value.faults[-1].startswith("120 samples quarantined, 2 allowed.")
