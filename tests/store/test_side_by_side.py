from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.recipe.errors import InputError
from aft_ray.store.contents import content_reader
from aft_ray.store.parquet import features_table
from aft_ray.store.schema import samples_schema
from aft_ray.store.shards import ShardDirectory, samples_fingerprint
from aft_ray.store.side_by_side import Store, open_store
from aft_ray.store.workspace import Workspace

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


def test_reading_a_shard_does_not_import_pandas(workspace: Workspace) -> None:
    """pyarrow does it for most ways to a NumPy array; every training would wait for it."""
    code = f"""
import sys
from aft_ray.store import open_store

shard = open_store({str(workspace)!r}, "train", ["one", "two"]).read_shard(0, side_by_side=False)
sys.exit("pandas" in sys.modules or len(shard["features"]) != 2)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


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


def test_names_cannot_leave_the_workspace(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="a name has letters"):
        workspace.features("../elsewhere", "train")


def test_a_float32_teacher_keeps_every_digit_beside_a_float16_one(workspace: Workspace) -> None:
    samples = samples_fingerprint(workspace.samples("train").manifest() or {})
    directory = workspace.features("exact", "train")
    for shard in range(2):
        table = features_table(ids(shard), features_of(shard, 3), "float32")
        directory.write_shard(shard, table, {"samples": samples})
    directory.write_manifest(2, {"samples": samples}, feature_dim=3)
    store = open_store(workspace, "train", ["one", "exact"])
    np.testing.assert_array_equal(store.read_shard(0)["features"][:, 4:], features_of(0, 3))
    half, exact = store.read_shard(0, side_by_side=False)["features"]
    assert (half.dtype, exact.dtype) == (np.float16, np.float32)


def test_samples_that_a_teacher_quarantined_are_left_out(workspace: Workspace) -> None:
    directory = workspace.features("one", "train")
    manifest = directory.manifest() or {}
    bad = {"sample_id": "s0-1", "reason": "broken"}
    table = features_table(ids(0), features_of(0, 4), quarantined=[1])
    directory.write_shard(0, table, manifest["fingerprint"], quarantined=[bad])
    written = directory.write_manifest(2, manifest["fingerprint"], feature_dim=4)
    assert (written["num_samples"], written["quarantined"]) == (4, [bad])
    store = open_store(workspace, "train", ["one", "two"])
    assert store.num_samples == 4
    shard = store.read_shard(0)
    assert shard["sample_id"] == ["s0-0", "s0-2"] and shard["label"].tolist() == [0, 2]
    assert len(shard["image"]) == 2 and shard["features"].shape == (2, 6) and np.isfinite(shard["features"]).all()


def test_pictures_can_stay_where_they_are(tmp_path: Path) -> None:
    picture = tmp_path / "a picture.png"
    picture.write_bytes(b"bytes")
    table = pa.table([["a"], [0], [str(picture)], [5]], schema=samples_schema("image", copy=False))
    read = content_reader(table)
    assert read(0) == b"bytes"
    picture.write_bytes(b"other bytes")
    with pytest.raises(InputError, match="has 11 bytes and had 5 when it was prepared"):
        read(0)


def test_labels_of_several_classes_have_nan_where_there_is_none(tmp_path: Path) -> None:
    directory = Workspace.at(tmp_path).samples("train")
    table = pa.table([["a", "b"], [[1.0, 0.0], None], ["x", "y"]], schema=samples_schema("text", "multilabel", 2))
    directory.write_shard(0, table, {})
    directory.write_manifest(1, {}, classes=["p", "q"], modality="text", task="multilabel")
    shard = open_store(tmp_path, "train").read_shard(0)
    np.testing.assert_array_equal(shard["label"], np.array([[1, 0], [np.nan, np.nan]], np.float32))
    assert shard["text"] == ["x", "y"] and "image" not in shard


def test_a_url_that_cannot_be_opened_says_so() -> None:
    with pytest.raises(InputError, match="nowhere://bucket/key cannot be opened"):
        Workspace.at("nowhere://bucket/key")


def test_a_label_out_of_range_is_refused_by_file(workspace: Workspace) -> None:
    samples = workspace.samples("train")
    labels = {"too large": [0, 1, 3], "below": [0, -2, 1], "missing": [0, None, 1]}
    for label in labels.values():
        samples.write_shard(0, pa.table([ids(0), label, [b"x"] * 3], schema=samples_schema("image")), SAMPLES)
        with pytest.raises(
            InputError, match=r"part-00000.parquet is damaged: a label is no number from -1 to 2\. Delete"
        ):
            open_store(workspace, "train").read_shard(0)


def test_features_of_more_shards_than_the_samples_have_are_refused_when_opened(workspace: Workspace) -> None:
    features = workspace.features("one", "train")
    fingerprint = (features.manifest() or {})["fingerprint"]
    features.write_manifest(1, fingerprint, feature_dim=4)
    with pytest.raises(InputError, match="features/one/train holds 3 samples in 1 shards, of 5 in 2"):
        open_store(workspace, "train", ["one"])


def test_features_of_another_width_than_the_manifest_s_are_refused(workspace: Workspace) -> None:
    features = workspace.features("one", "train")
    features.write_manifest(2, (features.manifest() or {})["fingerprint"], feature_dim=5)
    with pytest.raises(InputError, match="does not hold the samples of .* with 5 features each"):
        open_store(workspace, "train", ["one"]).read_shard(0)


@pytest.mark.parametrize("part", ["samples", "features/one"])
def test_a_shard_that_another_program_wrote_again_is_refused_as_nothing_proves_its_values(
    part: str, workspace: Workspace
) -> None:
    path = Path(workspace.path, part, "train", "part-00001.parquet")
    pq.write_table(pq.read_table(path), path, compression="gzip")
    store = open_store(workspace, "train", ["one"])
    store.read_shard(0)
    with pytest.raises(InputError, match="part-00001.parquet is damaged or foreign: .* bytes instead of"):
        store.read_shard(1)
