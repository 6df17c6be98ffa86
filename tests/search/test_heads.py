from __future__ import annotations

import numpy as np
import pytest

from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import log_me
from aft_ray.search import heads
from aft_ray.search.heads import Heads, _Neighbours, check_room, columns_of
from aft_ray.store.schema import UNLABELED


def test_neighbours_are_those_of_a_sort_over_everything() -> None:
    random = np.random.default_rng(1)
    similarities, labels = random.normal(size=(5, 90)).astype(np.float32), random.integers(0, 3, 90)
    nearest = _Neighbours(5)
    for start in range(0, 90, 25):
        nearest.update(similarities[:, start : start + 25], labels[start : start + 25])
    best = np.argsort(-similarities, axis=1)[:, :20]
    votes = np.stack(
        [[similarities[row][best[row]][labels[best[row]] == c].sum() for c in range(3)] for row in range(5)]
    )
    np.testing.assert_array_equal(nearest.vote(3), votes.argmax(1))


def test_the_linear_head_is_logme_s_on_the_labelled_rows_of_the_chosen_teachers() -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 3, 60)
    features = (random.normal(size=(60, 7)) + labels[:, None]).astype(np.float32)
    held_out = random.normal(size=(25, 7)).astype(np.float32) + 1
    seen = np.where(np.arange(60) % 4 == 0, UNLABELED, labels)
    found = Heads(columns_of(("one", "two"), (4, 3)), [("two",), ("one", "two")], 3, held_out)
    for start in range(0, 60, 20):
        found.update(features[start : start + 20], seen[start : start + 20])
    for subset, own in ((("two",), np.arange(4, 7)), (("one", "two"), np.arange(7))):
        score, weights = log_me(features[seen >= 0][:, own], seen[seen >= 0])
        answers = found.answers(subset)
        np.testing.assert_allclose(answers.log_me, score)
        np.testing.assert_array_equal(answers.linear, (held_out[:, own] @ weights.T).argmax(1))


def test_neighbours_that_have_no_room_in_memory_are_told_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "memory_here", lambda: 8e9)
    check_room(255, 50_000)
    with pytest.raises(
        InputError, match="5,000 samples for 8,191 combinations of teachers take 6.6 GB, more than half"
    ):
        check_room(8191, 5_000)
