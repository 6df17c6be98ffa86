"""The student's view: what changes, what does not, and that it is the same for any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aft_ray.models.text import PADDING
from aft_ray.recipe.config import override
from aft_ray.recipe.errors import InputError
from aft_ray.training.augment import Augmentation, drop_words, erased
from aft_ray.training.check import setting_faults
from aft_ray.training.inputs.batch import Batch
from tests.helpers.training import killed_after, recipe, run, timeless

ROWS = np.arange(12)


def pictures(count: int = 12) -> torch.Tensor:
    """Smooth pictures, bright at the left and dark at the right, a little so from top to bottom."""
    picture = torch.linspace(200, 10, 32)[None, :] + torch.linspace(40, 0, 32)[:, None]
    return picture.round().to(torch.uint8)[None, :, :, None].expand(count, 32, 32, 3).contiguous()


def augmentation(**train: Any) -> Augmentation:
    return Augmentation(recipe(**{"augment": "strong", **train}).train, ["image"])


def batch(inputs: torch.Tensor) -> Batch:
    return Batch(inputs, torch.zeros(len(inputs), dtype=torch.int64), torch.zeros(len(inputs), 0))


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_views_are_other_pictures_of_the_same_form_and_the_same_at_every_call(strength: str) -> None:
    given = pictures()
    change = augmentation(augment=strength)
    views = change(batch(given), 3, ROWS).inputs
    assert isinstance(views, torch.Tensor) and views.shape == given.shape and views.dtype == torch.uint8
    assert torch.equal(views, augmentation(augment=strength)(batch(given), 3, ROWS).inputs)  # type: ignore[arg-type]
    assert not torch.equal(views, change(batch(given), 4, ROWS).inputs)  # type: ignore[arg-type]
    assert len({view.numpy().tobytes() for view in views}) == len(views), "every row has its own view"
    assert (views.float() - given.float()).abs().mean() > 2


def test_two_workers_see_the_views_that_one_sees() -> None:
    given, change = pictures(), augmentation()
    whole = change(batch(given), 5, ROWS).inputs
    for rank in range(2):
        part = change(batch(given[rank::2]), 5, ROWS[rank::2]).inputs
        assert torch.equal(part, whole[rank::2])  # type: ignore[arg-type]


def test_only_flip_mirrors() -> None:
    def brighter_left(views: Any) -> torch.Tensor:
        return views[:, :, :16].float().mean((1, 2, 3)) > views[:, :, 16:].float().mean((1, 2, 3))

    many = pictures(200)
    rows = np.arange(200)
    assert brighter_left(augmentation(augment="light", flip=False)(batch(many), 0, rows).inputs).all()
    mirrored = (~brighter_left(augmentation(augment="light")(batch(many), 0, rows).inputs)).sum()
    assert 60 < mirrored < 140


def test_a_view_without_randomness_is_the_picture() -> None:
    """Numbers in the middle of their ranges: the whole area, no turn, no change of colours."""
    numbers = torch.full((12, 16), 0.5)
    numbers[:, 0] = 1.0
    numbers[:, 9] = 0.99  # not erased
    given = pictures()
    assert (augmentation(flip=False).pictures(given, numbers).float() - given.float()).abs().max() <= 1


def test_an_erased_patch_is_grey_and_of_the_wanted_area() -> None:
    numbers = torch.rand(400, 5, generator=torch.Generator().manual_seed(0))
    result = erased(torch.zeros(400, 3, 40, 40), numbers, 0.25)
    areas = (result[:, 0] == 127).float().mean((1, 2))
    chosen = numbers[:, 0] < 0.25
    assert not areas[~chosen].any() and areas[chosen].min() > 0.005 and areas[chosen].max() < 0.25


def test_dropped_words_leave_the_others_in_order_and_the_ends_in_place() -> None:
    ids = torch.tensor([[7, 11, 12, 13, 14, 9, PADDING, PADDING], [7, 9] + 6 * [PADDING]], dtype=torch.int32)
    numbers = torch.full((2, 8), 0.9)
    numbers[0, [0, 2, 3, 5]] = 0.0  # the first and the last stay all the same
    kept = [[7, 11, 14, 9] + 4 * [PADDING], [7, 9] + 6 * [PADDING]]
    assert drop_words(ids, numbers, 0.1).tolist() == kept


def test_a_resumed_run_sees_the_same_views(tmp_path: Path) -> None:
    given = recipe(augment="strong", ema=0.9, steps=6)
    expected = run(given, tmp_path / "undisturbed")
    kept = killed_after(3, given, tmp_path)
    assert timeless(run(given, tmp_path / "resumed", resume=kept)) == timeless(expected)
    assert timeless(run(recipe(steps=6), tmp_path / "plain")) != timeless(expected)


def test_what_has_no_view_is_refused() -> None:
    given = override(recipe(augment="light"), {"student.model": "linear_probe"})
    assert setting_faults(given) == [
        "train.augment is for students of pictures or texts; linear_probe reads features. Set it to none."
    ]
    with pytest.raises(InputError, match="train.augment must be"):
        override(recipe(), {"train.augment": "much"})
