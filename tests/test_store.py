from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.config import InputError
from aft_ray.schema import samples_schema
from aft_ray.store import (
    ShardDirectory,
    Store,
    Workspace,
    features_array,
    features_table,
    open_store,
    samples_fingerprint,
)

SAMPLES = {"dataset": "made up"}


def ids(shard: int) -> list[str]:
    return [f"s{shard}-{row}" for row in range(3 - shard)]


def features_of(shard: int, width: int) -> np.ndarray:
    return np.random.default_rng((shard, width)).normal(size=(len(ids(shard)), width)).astype(np.float32)


def write_samples(workspace: Workspace, split: str = "train") -> str:
    directory = workspace.samples(split)
    for shard in range(2):
        columns = [ids(shard), list(range(len(ids(shard)))), [b"x"] * len(ids(shard))]
        directory.write_shard(shard, pa.table(columns, schema=samples_schema("image")), SAMPLES)
    return samples_fingerprint(directory.write_manifest(2, SAMPLES, classes=["a", "b", "c"], modality="image"))


def write_features(workspace: Workspace, teacher: str, width: int, samples: str) -> ShardDirectory:
    directory = workspace.features(teacher, "train")
    fingerprint = {"model": teacher, "samples": samples}
    for shard in range(2):
        directory.write_shard(shard, features_table(pa.array(ids(shard)), features_of(shard, width)), fingerprint)
    directory.write_manifest(2, fingerprint, feature_dim=width)
    return directory


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace.at(tmp_path / "work")
    samples = write_samples(place)
    write_features(place, "one", 4, samples)
    write_features(place, "two", 2, samples)
    return place


def test_teachers_are_read_side_by_side_in_the_order_asked_for(workspace: Workspace) -> None:
    store = open_store(workspace, "train", ["two", "one"])
    assert (store.num_shards, store.num_samples, store.teacher_dims) == (2, 5, [2, 4])
    shard = store.read_shard(1)
    assert shard["sample_id"] == ids(1) and shard["label"].tolist() == [0, 1]
    assert shard["features"].dtype == np.float32
    expected = np.concatenate([features_of(1, 2), features_of(1, 4)], axis=1)
    np.testing.assert_allclose(shard["features"], expected, rtol=1e-3)


def test_files_are_plain_arrow_types_that_pyarrow_and_pandas_read(workspace: Workspace) -> None:
    path = Path(workspace.path) / "features" / "one" / "train" / "part-00000.parquet"
    assert pq.read_schema(path).field("features").type == pa.list_(pa.float16(), 4)
    frame = pd.read_parquet(path)
    np.testing.assert_allclose(np.stack(list(frame["features"])), features_of(0, 4), rtol=1e-3)


def test_features_are_read_without_a_copy(workspace: Workspace) -> None:
    array = features_array(workspace.features("one", "train").read_shard(0))
    assert array.dtype == np.float16 and array.base is not None and not array.flags.owndata


def test_a_restart_is_told_exactly_the_missing_shards(workspace: Workspace) -> None:
    directory = workspace.features("one", "train")
    manifest = directory.manifest()
    assert manifest is not None
    assert directory.missing_shards(4, manifest["fingerprint"]) == [2, 3]
    (Path(directory.path) / "part-00000.parquet").unlink()
    assert directory.missing_shards(2, manifest["fingerprint"]) == [0]


def test_a_shard_of_another_setting_is_refused_by_name_of_the_differing_key(workspace: Workspace) -> None:
    directory = workspace.features("one", "train")
    with pytest.raises(InputError, match="model is 'one' on disk, 'other' in this run"):
        directory.missing_shards(2, {"model": "other"})


def test_opening_names_every_fault_at_once(workspace: Workspace) -> None:
    with pytest.raises(InputError) as caught:
        open_store(workspace, "train", ["one", "three", "four"], {"one": {"model": "changed"}})
    assert len(caught.value.faults) == 3
    assert "model is 'one' on disk, 'changed' in this run" in caught.value.faults[0]
    assert "No features of teacher 'three'" in caught.value.faults[1] and "aft-ray extract" in caught.value.faults[1]


def test_features_of_other_samples_are_refused(workspace: Workspace) -> None:
    samples = workspace.samples("train")
    columns = [["z0", "z1", "z2"], [0, 0, 0], [b"", b"", b""]]
    samples.write_shard(0, pa.table(columns, schema=samples_schema("image")), SAMPLES)
    samples.write_manifest(2, SAMPLES, classes=["a"], modality="image")
    with pytest.raises(InputError, match="samples is .* on disk, .* in this run"):
        open_store(workspace, "train", ["one"])
    store = Store(samples, (workspace.features("one", "train"),))
    with pytest.raises(InputError, match="does not hold the samples of"):
        store.read_shard(0)


def test_no_manifest_means_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Run 'aft-ray prepare' first"):
        open_store(tmp_path, "train")


def test_damage_is_found_and_named(workspace: Workspace) -> None:
    directory = workspace.features("one", "train")
    assert directory.faults() == []
    path = Path(directory.path)
    content = bytearray((path / "part-00000.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "part-00000.parquet").write_bytes(content)
    (path / "part-00001.parquet").unlink()
    (path / "stranger.txt").write_text("?")
    damaged, missing, stranger = directory.faults()
    assert "part-00000.parquet is damaged" in damaged
    assert "part-00001.parquet is missing" in missing
    assert "stranger.txt does not belong here" in stranger


def test_a_truncated_shard_is_not_taken_for_a_finished_one(workspace: Workspace) -> None:
    directory = workspace.features("one", "train")
    path = Path(directory.path) / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="part-00000.parquet is damaged or foreign"):
        directory.missing_shards(2, {"model": "one"})


@pytest.mark.parametrize("value", [1e6, float("nan"), float("-inf")])
def test_values_that_float16_cannot_hold_are_refused_by_sample(value: float) -> None:
    features = np.zeros((2, 3), np.float32)
    features[1, 2] = value
    with pytest.raises(InputError, match="Feature 2 of sample b is .*, which float16 cannot hold"):
        features_table(pa.array(["a", "b"]), features)


def test_a_failed_write_leaves_neither_a_shard_nor_a_temporary_file(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = workspace.features("new", "train")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("aft_ray.store.os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        directory.write_shard(0, features_table(pa.array(["a"]), np.ones((1, 2))), {})
    assert directory.names() == []


def test_names_cannot_leave_the_workspace(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="a name has letters"):
        workspace.features("../elsewhere", "train")


def test_the_manifest_counts_and_checks(workspace: Workspace) -> None:
    manifest = json.loads((Path(workspace.path) / "samples" / "train" / "manifest.json").read_text())
    assert [shard["num_samples"] for shard in manifest["shards"]] == [3, 2]
    assert manifest["num_samples"] == 5 and len(manifest["shards"][0]["sha256"]) == 64
