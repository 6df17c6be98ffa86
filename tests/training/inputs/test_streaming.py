"""Reading from shards while training: the same samples, exactly once an epoch, whoever reads and wherever it starts."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aft_ray.models.students import student_transforms
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError, WorkerError
from aft_ray.recipe.sections import StudentConfig
from aft_ray.store.side_by_side import Store
from aft_ray.training.build import build_task
from aft_ray.training.fit import evaluate
from aft_ray.training.inputs.batches import Samples, load_split
from aft_ray.training.inputs.data import Data, load_data
from aft_ray.training.inputs.feed import Feed
from aft_ray.training.inputs.order import LANES, WindowShuffle
from aft_ray.training.inputs.streaming import decoded_bytes, stream_split
from tests.helpers.training import (
    TEACHERS,
    TEST,
    TRAIN,
    VALIDATION,
    killed_after,
    made_split,
    made_store,
    recipe,
    run,
    timeless,
)

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TRANSFORMS = student_transforms(StudentConfig(model="tiny:cnn"))


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Store]:
    splits = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return {name: made_store(tmp_path / "work", name, split, shard_size=7) for name, split in splits.items()}


def feed_of(split: Samples, given: Recipe, rank: int = 0, world_size: int = 1) -> Feed:
    return Feed(given, split, TEACHERS, CPU, rank, world_size)


def test_rows_are_those_of_the_split_in_memory(stores: dict[str, Store]) -> None:
    memory = load_split(stores["train"], TEACHERS, TRANSFORMS)
    stream = stream_split(stores["train"], TEACHERS, TRANSFORMS, world_size=1)
    assert isinstance(TRAIN.inputs, np.ndarray) and isinstance(memory.inputs, np.ndarray)
    assert (memory.inputs == TRAIN.inputs).all() and memory.features["one"].dtype == np.float16
    assert len(stream) == len(memory) == 60 and stream.feature_dims == memory.feature_dims == {"one": 5, "two": 3}
    indices = np.array([59, 3, 3, 20, 0, 41])
    for found, expected in zip(
        (stream.rows(indices, ["two", "one"]), pickle.loads(pickle.dumps(stream)).rows(indices, ["two", "one"])),
        (memory.rows(indices, ["two", "one"]),) * 2,
        strict=True,
    ):
        for name in ("inputs", "labels", "teacher_features"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
            assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert (stream.sample_ids == memory.sample_ids).all() and stream.classes == memory.classes


def test_every_sample_once_an_epoch_and_neighbours_come_from_many_shards(stores: dict[str, Store]) -> None:
    stream = stream_split(stores["train"], TEACHERS, TRANSFORMS, world_size=1)
    feed = feed_of(stream, recipe(global_batch_size=12))
    epochs = [np.concatenate([feed.indices(5 * epoch + step) for step in range(5)]) for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(60)) and epochs[0].tolist() != epochs[1].tolist()
    again = feed_of(stream, recipe(global_batch_size=12))
    assert (again.indices(7) == feed.indices(7)).all(), "a step's samples are a function of (seed, step)"
    assert (feed_of(stream, recipe(global_batch_size=12, seed=1)).indices(7) != feed.indices(7)).any()


def test_workers_read_shards_of_their_own() -> None:
    """64 shards of 10: of the lanes' borders apart, no shard is read by two of four workers in an epoch."""
    shuffle = WindowShuffle(np.arange(0, 650, 10))
    order = shuffle(np.arange(640), (0, 0))
    assert sorted(order) == list(range(640))
    shards_of_workers = [set(order[worker::4] // 10) for worker in range(4)]
    shared = sum(len(shards) for shards in shards_of_workers) - 64
    assert shared <= LANES
    for start in range(0, 640, 64):  # a worker has few shards open at a time, a batch is of many
        assert len(set(order[start : start + 64] // 10)) >= 12
        assert all(len(set(order[start + worker : start + 64 : 4] // 10)) <= 8 for worker in range(4))


def test_two_workers_hold_the_rows_of_one(stores: dict[str, Store]) -> None:
    given = recipe(labels_per_class=4, steps=4)
    whole = load_data(
        given.model_copy(update={"train": given.train.model_copy(update={"streaming": True})}), stores
    ).of(given)
    assert (whole.train.labels >= 0).sum() == 12
    batches = [list(feed_of(whole.train, given, rank, world).steps(1)) for rank, world in ((0, 1), (0, 2), (1, 2))]
    for one, left, right in zip(*batches, strict=True):
        assert torch.equal(one.student.labels[0::2], left.student.labels)
        assert torch.equal(one.student.inputs[1::2], right.student.inputs)


def test_a_streamed_run_goes_on_in_the_middle_of_an_epoch(stores: dict[str, Store], tmp_path: Path) -> None:
    given = recipe(streaming=True, global_batch_size=11, evaluate_every=4)  # an epoch ends inside the sixth batch
    data = load_data(given, stores)
    whole = run(given, tmp_path / "whole", data)
    resumed = run(
        given, tmp_path / "cut", load_data(given, stores), resume=killed_after(4, given, tmp_path / "cut", data)
    )
    assert timeless(resumed) == timeless(whole)


def test_streamed_and_in_memory_evaluation_give_the_same(stores: dict[str, Store]) -> None:
    given = recipe()
    streamed = load_data(recipe(streaming=True), stores)
    task = build_task(given, Data(TRAIN, VALIDATION, TEST), CPU, weights_follow=False)
    for split in ("validation", "test"):
        found, expected = (
            evaluate(task, samples, CPU)
            for samples in (getattr(streamed, split), load_split(stores[split], (), TRANSFORMS))
        )
        assert found.result() == pytest.approx(expected.result())
        assert found.counts["accuracy"] == len(getattr(streamed, split))
    for world_size in (1, 2, 3, 4, 7):
        shares = [streamed.test.share(rank, world_size) for rank in range(world_size)]
        assert sorted(np.concatenate(shares)) == list(range(17))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_of_other_tasks_come_back_with_what_is_missing(task: str, tmp_path: Path) -> None:
    made = made_split(20, 0, task)
    labels = made.labels.copy()
    labels[3] = np.nan
    store = made_store(tmp_path, "train", replace(made, labels=labels), shard_size=6)
    for split in (load_split(store, TEACHERS, TRANSFORMS), stream_split(store, TEACHERS, TRANSFORMS, world_size=1)):
        assert split.task == task and split.classes == ("top", "bottom")
        np.testing.assert_array_equal(split.labels, labels)


def test_features_keep_their_stored_type_and_can_be_the_input(tmp_path: Path) -> None:
    wide = replace(
        TRAIN, features={"one": TRAIN.features["one"], "two": TRAIN.features["two"].astype(np.float32) + 1e-5}
    )
    store = made_store(tmp_path, "train", wide, shard_size=7)
    split = load_split(store, TEACHERS, ())
    assert [split.features[name].dtype for name in TEACHERS] == [np.float16, np.float32]
    indices = np.array([5, 50])
    for probe in (split, stream_split(store, TEACHERS, (), world_size=1)):
        batch = probe.rows(indices, ())
        assert isinstance(batch.inputs, torch.Tensor) and batch.inputs.dtype == torch.float32
        expected = np.concatenate([wide.features[name][indices].astype(np.float32) for name in TEACHERS], axis=1)
        np.testing.assert_array_equal(batch.inputs.numpy(), expected)
        assert batch.teacher_features.shape == (2, 0)


def test_samples_that_cannot_be_decoded_are_listed_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Spoilt:
        column = "image"

        def __call__(self, content: Any) -> np.ndarray:
            if content in bad:
                raise OSError("image file is truncated")
            return TRANSFORMS[0](content)

    spoil = Spoilt()
    store = made_store(tmp_path, "train", TRAIN, shard_size=7)
    bad = [store.read_shard(shard)["image"][2] for shard in (0, 3)]
    with pytest.raises(InputError) as refused:
        load_split(store, TEACHERS, (spoil,), max_bad_samples=1)
    assert [line.partition(":")[0] for line in refused.value.faults[:2]] == [
        "Sample s2 cannot be read",
        "Sample s23 cannot be read",
    ]
    split = load_split(store, TEACHERS, (spoil,), max_bad_samples=2)
    assert len(split) == 58 and not {"s2", "s23"} & set(split.sample_ids)
    assert (split.features["one"] == np.delete(TRAIN.features["one"], [2, 23], axis=0)).all()
    assert "s23 is quarantined: image file is truncated" in caplog.text
    stream = stream_split(store, TEACHERS, (spoil,), world_size=1)
    with pytest.raises(
        WorkerError, match="s23 cannot be read: image file is truncated. A stream cannot leave samples out"
    ):
        stream.rows(np.array([22, 23]), ())


def test_labels_that_the_manifest_does_not_name_are_a_fault(tmp_path: Path) -> None:
    store = made_store(tmp_path, "train", replace(TRAIN, classes=("a", "b")), shard_size=30)
    for read in (lambda: load_split(store, (), ()), lambda: stream_split(store, (), (), world_size=1)):
        with pytest.raises(InputError, match="a label is no number from -1 to 1"):
            read()


def test_splits_of_different_classes_or_without_a_label_to_choose_by_are_a_fault(tmp_path: Path) -> None:
    splits = {"train": TRAIN, "validation": replace(VALIDATION, labels=VALIDATION.labels * 0 - 1), "test": TEST}
    splits["test"] = replace(TEST, classes=("a", "b", "d"))
    stores = {name: made_store(tmp_path, name, split, shard_size=30) for name, split in splits.items()}
    with pytest.raises(InputError) as refused:
        load_data(recipe(), stores)
    assert "The test split has other classes" in refused.value.faults[0]
    assert "No sample of the validation split has a label" in refused.value.faults[1]


def test_the_size_of_a_split_is_known_before_it_is_decoded(stores: dict[str, Store]) -> None:
    assert decoded_bytes(stores["train"], TRANSFORMS) == 60 * (28 * 28 * 3 + 8 * 2)
    assert decoded_bytes(stores["train"], ()) == 60 * 8 * 2
