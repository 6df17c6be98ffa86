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
    kinds = [quarantined_sample(f"s{index}", OSError(f"gone {'x' * index}")) for index in range(120)]
    many = [quarantined_sample(f"t{index}", OSError(2, "No such file", f"/data/{index}.png")) for index in range(300)]
    check_quarantined(kinds + many, 420)
    with pytest.raises(InputError) as caught:
        check_quarantined(many + kinds, 2)
    first = "Sample t0 and 299 more cannot be read: [Errno 2] No such file: '/data/0.png'."
    assert caught.value.faults[:2] == [first, "Sample s0 cannot be read: gone."]
    assert caught.value.faults[-2] == "... and 21 more faults."
    assert caught.value.faults[-1].startswith("420 samples quarantined, 2 allowed.")
