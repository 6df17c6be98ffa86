from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
import pytest
import torch

from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.extraction.features import RESULT, EmbedShard, embed, without
from aft_ray.extraction.reading import CROPS
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.shards import ShardDirectory
from aft_ray.store.workspace import Workspace
from tests.helpers.own_teachers import Means, calls

CPU = torch.device("cpu")
WATCH = Watch(AttemptsHere(), "teacher 'means'", 1)


def means(**options: object) -> TeacherConfig:
    return TeacherConfig(name="means", model="tests.helpers.own_teachers:Means", batch_size=4, options=options)


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_where_memory_runs_out_the_batch_is_halved_and_tried_again(tmp_path: Path) -> None:
    given = crops(11)
    teacher = Means(means(room=3, log=str(tmp_path / "log")), CPU)
    features, batch_size = embed(teacher, given, 16)
    assert batch_size == 2
    assert [samples for _, samples in calls(tmp_path / "log")] == [2, 2, 2, 2, 2, 1]
    np.testing.assert_allclose(features, given.reshape(11, -1) / 255, rtol=1e-6)


def test_a_single_sample_without_room_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        embed(Means(means(room=0), CPU), crops(2), 2)


def test_texts_are_batched_by_length_and_come_back_in_order() -> None:
    seen: list[list[str]] = []

    class Lengths(Means):
        def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
            seen.append(list(inputs))
            return torch.tensor([[float(len(text))] for text in inputs])

    teacher = Lengths(means(), CPU)
    teacher.feature_dim = 1
    features, _ = embed(teacher, ["four", "a", "three", "to"], 2)
    assert seen == [["a", "to"], ["four", "three"]]
    assert features[:, 0].tolist() == [4, 1, 5, 2]


def row(given: np.ndarray, quarantined: dict) -> dict:
    ids = [f"s{index}" for index in range(len(given))]
    return {
        "split": "train",
        "shard": 3,
        "sample_id": ids,
        "picture": np.arange(len(given)),
        "quarantined": quarantined,
        CROPS + "means": given,
    }


def test_a_shard_is_written_once_with_its_quarantined_samples(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workspace = Workspace.at(tmp_path / "work")
    stage = EmbedShard(means(log=str(log)), workspace, {"means": {"train": {"model": "means"}}}, WATCH)
    bad = {1: {"sample_id": "s1", "reason": "broken"}}
    done = stage(row(crops(5), bad))
    result = done[RESULT + "means"]
    assert result["entry"]["num_samples"] == 4 and result["entry"]["quarantined"] == list(bad.values())
    assert "sample_id" not in done and CROPS + "means" not in done
    _, features = workspace.features("means", "train").read_features(3)
    assert np.isnan(features[1]).all() and np.isfinite(features[[0, 2, 3, 4]]).all()

    again = stage(row(crops(5), bad))
    assert again[RESULT + "means"] == {} and len(calls(log)) == 2


def test_the_share_of_a_shard_is_reported_from_its_first_batch_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aft_ray.extraction.features.TOLD_EVERY_S", 0.0)
    attempts, shares = AttemptsHere(), []

    class Slow(Means):
        def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
            shares.append(attempts.parts())
            return super().__call__(inputs)

    stage = EmbedShard(means(), Workspace.at(tmp_path), {"means": {"train": {}}}, Watch(attempts, "teacher 'means'", 0))
    stage.teacher = Slow(means(), CPU)
    stage(row(crops(10), {}))
    assert shares == [0.0, 0.4, 0.8] and attempts.parts() == 0.0
    attempts.part("teacher 'means', shard 3 of train", 1.0)  # a report that comes after the shard's end
    assert attempts.parts() == 0.0


def test_a_quarantined_sample_has_no_features() -> None:
    assert without(["a", "b", "c"], [1]) == ["a", "", "c"]
    given = crops(3)
    np.testing.assert_array_equal(without(given, [0]), [np.zeros_like(given[0]), *given[1:]])
    assert given[0].any()


def test_a_shard_is_computed_while_another_is_written_and_never_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_computes, at_work = Event(), Lock()
    write_shard = ShardDirectory.write_shard

    class OneAtATime(Means):
        def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
            assert at_work.acquire(blocking=False), "two shards are computed at once"
            try:
                if np.array(inputs).flat[0] == 1:
                    second_computes.set()
                return super().__call__(inputs)
            finally:
                at_work.release()

    def write_when_the_second_computes(self: ShardDirectory, shard: int, *rest: Any, **options: Any) -> dict[str, Any]:
        if shard == 0:
            assert second_computes.wait(30), "the second shard waits until the first is written"
        return write_shard(self, shard, *rest, **options)

    monkeypatch.setattr(ShardDirectory, "write_shard", write_when_the_second_computes)
    stage = EmbedShard(means(), Workspace.at(tmp_path / "work"), {"means": {"train": {"model": "means"}}}, WATCH)
    stage.teacher = OneAtATime(means(), CPU)
    rows = [row(np.full((9, 8, 8, 3), number, np.uint8), {}) | {"shard": number} for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        done = [result[RESULT + "means"] for result in pool.map(stage, rows)]
    assert [result["entry"]["num_samples"] for result in done] == [9, 9]
