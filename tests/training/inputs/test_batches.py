from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import UNLABELED
from aft_ray.training.inputs.batches import Split, evaluation_batches
from aft_ray.training.inputs.order import BatchOrder, WindowShuffle, worker_rows


def split(num_samples: int, classes: int = 4) -> Split:
    return Split(
        sample_ids=np.array([f"s{index}" for index in range(num_samples)]),
        labels=np.arange(num_samples) % classes,
        inputs=np.zeros((num_samples, 2, 2, 3), np.uint8),
        features={"a": np.ones((num_samples, 3), np.float16), "b": np.full((num_samples, 2), 2, np.float16)},
        classes=tuple("abcd"[:classes]),
    )


def test_one_epoch_shows_every_sample_exactly_once_and_epochs_differ() -> None:
    order = BatchOrder(split(30).labels, 10, 0.5, seed=0)
    epochs = [np.concatenate([order.all(3 * epoch + step) for step in range(3)]) for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(30))
    assert epochs[0].tolist() != epochs[1].tolist()


@given(st.integers(5, 40), st.integers(2, 5), st.integers(0, 200), st.integers(0, 3))
def test_a_step_s_samples_depend_on_seed_and_step_alone(num_samples: int, size: int, step: int, seed: int) -> None:
    labels = split(num_samples).labels
    walked = BatchOrder(labels, size, 0.5, seed)
    for earlier in range(step):
        walked.all(earlier)
    jumped = BatchOrder(labels, size, 0.5, seed)
    assert walked.all(step).tolist() == jumped.all(step).tolist()


def test_every_step_has_the_whole_batch_even_where_an_epoch_ends_inside_it() -> None:
    order = BatchOrder(split(25).labels, 10, 0.5, seed=0)
    drawn = np.concatenate([order.all(step) for step in range(5)])
    assert len(drawn) == 50 and np.bincount(drawn).tolist() == [2] * 25


def test_a_partly_labelled_batch_has_the_asked_share_of_labels_first() -> None:
    labels = split(100).keep_labels(5, seed=0).labels
    order = BatchOrder(labels, 16, 0.25, seed=0)
    for step in range(20):
        drawn = labels[order.all(step)]
        assert (drawn[:4] != UNLABELED).all() and (drawn[4:] == UNLABELED).all()
        assert order.labeled(step).tolist() == order.all(step)[:4].tolist()


def test_few_labels_fill_what_they_can_and_few_unlabelled_leave_room() -> None:
    labels = np.array([0, 1] + [UNLABELED] * 30)
    assert BatchOrder(labels, 16, 0.5, seed=0).num_labeled == 2
    labels = np.array([0, 1] * 15 + [UNLABELED] * 2)
    assert BatchOrder(labels, 16, 0.5, seed=0).num_labeled == 14


def test_labels_are_kept_per_class_and_the_seed_chooses_them() -> None:
    data = split(80)
    kept = data.keep_labels(3, seed=0).labels
    assert np.bincount(kept[kept != UNLABELED]).tolist() == [3, 3, 3, 3]
    assert (kept[kept != UNLABELED] == data.labels[kept != UNLABELED]).all()
    assert not np.array_equal(kept, data.keep_labels(3, seed=1).labels)
    assert data.keep_labels(None, seed=0) is data


@given(st.integers(1, 50), st.integers(1, 5), st.integers(1, 7))
def test_workers_share_rows_and_evaluation_without_loss_or_repeat(n: int, workers: int, size: int) -> None:
    rows = [worker_rows(np.arange(n), rank, workers) for rank in range(workers)]
    assert sorted(np.concatenate(rows)) == list(range(n))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    evaluated = [i for rank in range(workers) for b in evaluation_batches(split(n), size, rank, workers) for i in b]
    assert sorted(evaluated) == list(range(n))


def test_a_batch_has_the_teachers_side_by_side_in_the_order_asked_for() -> None:
    batch = split(4).batch(np.array([0, 2]), ["b", "a"], torch.device("cpu"))
    assert batch.teacher_features.tolist() == [[2, 2, 1, 1, 1]] * 2 and batch.teacher_features.dtype == torch.float32
    assert split(4).batch(np.array([0]), [], torch.device("cpu")).teacher_features.shape == (1, 0)


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(InputError, match="No sample of the train split has a label"):
        BatchOrder(np.full(10, UNLABELED), 4, 0.5, 0)
    with pytest.raises(InputError, match="global_batch_size is 11, the train split has 10 samples"):
        BatchOrder(np.zeros(10, int), 11, 0.5, 0)


def test_an_epoch_in_windows_shows_every_sample_once_whatever_the_sizes() -> None:
    for sizes in ([3], [1, 1], [7, 2, 9, 4], [50] * 3 + [11]):
        bounds = np.cumsum([0, *sizes])
        items = np.arange(bounds[-1])
        assert sorted(WindowShuffle(bounds)(items, (0, 1))) == items.tolist()
        some = items[::3]
        assert sorted(WindowShuffle(bounds)(some, (0, 1))) == some.tolist()
