"""What rank says of each teacher, and of the rows that a regularizer will see."""

from __future__ import annotations

import numpy as np
import pytest

from aft_ray.recipe.sections import TrainConfig
from aft_ray.search.knowledge import Knowledge, advice

ALL = np.arange(300) % 10


@pytest.mark.parametrize(
    ("r2", "alignment", "words"),
    [
        (0.01, 0.0, "say nothing about the labels beyond chance: leave it out"),
        (0.03, 0.4, "say nothing about the labels beyond chance: leave it out"),
        (0.4, 0.07, "know the labels, its kernel hardly does: plain aft will not help, aft_probe can."),
        (0.4, 0.3, "know the labels, and its kernel shows them: aft can help, aft_probe too."),
        (0.4, float("nan"), "know the labels, and its kernel shows them"),
    ],
)
def test_a_teacher_in_words(r2: float, alignment: float, words: str) -> None:
    (sentence,) = advice([Knowledge("cat", r2, 0.05, alignment)], ALL, TrainConfig(global_batch_size=96))
    assert sentence.startswith("cat: its features ") and words in sentence


@pytest.mark.parametrize(
    ("labels", "settings", "warned"),
    [
        (ALL[:100], {}, True),
        (ALL, {}, False),
        (np.where(np.arange(300) < 100, ALL, -1), {}, False),
        (np.where(np.arange(300) < 100, ALL, -1), {"labeled_fraction": 1.0}, True),
        (ALL[:100], {"global_batch_size": 20}, False),
    ],
    ids=["few", "many", "few beside unlabelled", "few that alone are drawn", "few, but many batches"],
)
def test_few_rows_that_a_kernel_would_learn_by_heart_are_warned_of(
    labels: np.ndarray, settings: dict, warned: bool
) -> None:
    sentences = advice([], labels, TrainConfig(**{"global_batch_size": 96, **settings}))
    assert bool(sentences) == warned
    assert (
        not warned
        or "Few labels (100) and no unlabelled rows in the batches: expect harm from a kernel of raw features"
        in sentences[0]
    )
