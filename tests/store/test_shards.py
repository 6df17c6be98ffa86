from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.recipe.errors import InputError
from aft_ray.store.parquet import PLAIN_KEY, content_digest, features_array, features_table
from aft_ray.store.schema import samples_schema
from aft_ray.store.shards import ShardDirectory
from aft_ray.store.workspace import Workspace

FINGERPRINT = {"model": "one"}


def ids(shard: int) -> list[str]:
    return [f"s{shard}-{row}" for row in range(3 - shard)]


def features_of(shard: int) -> np.ndarray:
    return np.random.default_rng(shard).normal(size=(len(ids(shard)), 4)).astype(np.float32)


@pytest.fixture
def directory(tmp_path: Path) -> ShardDirectory:
    """Two shards of three and two samples, and their manifest."""
    place = Workspace.at(tmp_path).features("one", "train")
    for shard in range(2):
        place.write_shard(shard, features_table(ids(shard), features_of(shard)), FINGERPRINT)
    place.write_manifest(2, FINGERPRINT, feature_dim=4)
    return place


def test_files_are_plain_arrow_types_that_pyarrow_and_pandas_read(directory: ShardDirectory) -> None:
    path = Path(directory.path) / "part-00000.parquet"
    kind = pq.read_schema(path).field("features").type
    assert (kind.value_type, kind.list_size) == (pa.float16(), 4)
    np.testing.assert_array_equal(features_array(pq.read_table(path)), features_of(0).astype(np.float16))
    frame = pd.read_parquet(path)
    np.testing.assert_allclose(np.stack(list(frame["features"])), features_of(0), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_are_read_as_a_view_of_the_file(directory: ShardDirectory, dtype: str) -> None:
    features = np.random.default_rng(1).normal(size=(300, 700)).astype(dtype)
    directory.write_shard(5, features_table([f"s{row}" for row in range(300)], features, dtype), FINGERPRINT)
    found_ids, found = directory.read_features(5)
    assert not found.flags.owndata and not found.flags.writeable
    np.testing.assert_array_equal(found, features)
    assert found_ids[299].as_py() == "s299"


def test_a_file_without_our_layout_is_read_through_arrow(directory: ShardDirectory) -> None:
    path = Path(directory.path) / "part-00000.parquet"
    table = pq.read_table(path)
    metadata = {key: value for key, value in table.schema.metadata.items() if key != PLAIN_KEY}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd", row_group_size=2)
    np.testing.assert_array_equal(directory.read_features(0)[1], features_of(0).astype(np.float16))


def test_a_restart_is_told_exactly_the_missing_shards(directory: ShardDirectory) -> None:
    assert directory.missing_shards(range(4), FINGERPRINT) == [2, 3]
    (Path(directory.path) / "part-00000.parquet").unlink()
    assert directory.missing_shards(range(2), FINGERPRINT) == [0]


def test_a_shard_of_another_setting_is_refused_by_name_of_the_differing_key(directory: ShardDirectory) -> None:
    with pytest.raises(InputError, match="model is 'one' on disk, 'other' in this run"):
        directory.missing_shards(range(2), {"model": "other"})


def test_without_a_manifest_every_shard_tells_what_made_it(directory: ShardDirectory) -> None:
    (Path(directory.path) / "manifest.json").unlink()
    directory.write_shard(1, features_table(ids(1), features_of(1)), {"model": "two"})
    assert directory.missing_shards(range(1), FINGERPRINT) == []
    with pytest.raises(InputError, match="model is 'two' on disk, 'one' in this run"):
        directory.missing_shards(range(2), FINGERPRINT)


def test_damage_is_found_and_named(directory: ShardDirectory) -> None:
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


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_truncated_shard_is_not_taken_for_a_finished_one(directory: ShardDirectory, with_manifest: bool) -> None:
    path = Path(directory.path) / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:100])
    if not with_manifest:
        (Path(directory.path) / "manifest.json").unlink()
    with pytest.raises(InputError, match="part-00000.parquet is damaged or foreign.*Delete it and run again"):
        directory.missing_shards(range(2), FINGERPRINT)


def test_a_foreign_file_is_named(directory: ShardDirectory) -> None:
    pq.write_table(pa.table({"a": [1]}), Path(directory.path) / "part-00002.parquet")
    with pytest.raises(InputError, match="part-00002.parquet is damaged or foreign: it was not written by aft_ray"):
        directory.missing_shards(range(3), FINGERPRINT)


@pytest.mark.parametrize(
    ("value", "way_out"),
    [(1e6, "features_dtype: float32"), (float("nan"), "precision: fp32"), (float("-inf"), "precision: fp32")],
)
def test_values_that_float16_cannot_hold_are_refused_by_sample(value: float, way_out: str) -> None:
    features = np.zeros((2, 3), np.float32)
    features[1, 2] = value
    with pytest.raises(InputError, match=f"Feature 2 of sample b is .*, no number of float16.*{way_out}"):
        features_table(["a", "b"], features)
    assert np.isnan(features_array(features_table(["a", "b"], features, quarantined=[1]))[1]).all()


def test_a_failed_write_leaves_neither_a_shard_nor_a_temporary_file(
    directory: ShardDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("aft_ray.store.files.os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        directory.write_shard(7, features_table(["a"], np.ones((1, 2))), {})
    assert directory.names() == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]


def test_what_killed_writers_left_is_swept_up_later(directory: ShardDirectory) -> None:
    old, new = (
        Path(directory.path) / ".part-00000.parquet.0123abcd.tmp",
        Path(directory.path) / ".part-00000.parquet.4567cdef.tmp",
    )
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    directory.write_manifest(2, FINGERPRINT)
    assert not old.exists() and new.exists()


def test_the_manifest_counts_and_checks(directory: ShardDirectory) -> None:
    manifest = json.loads((Path(directory.path) / "manifest.json").read_text())
    assert [shard["num_samples"] for shard in manifest["shards"]] == [3, 2]
    assert manifest["num_samples"] == 5 and len(manifest["shards"][0]["sha256"]) == 64


def test_a_manifest_is_the_same_from_entries_and_from_files(directory: ShardDirectory) -> None:
    entry = directory.write_shard(0, features_table(ids(0), features_of(0)), FINGERPRINT)
    assert directory.write_manifest(2, FINGERPRINT, entries={0: entry}) == directory.write_manifest(2, FINGERPRINT)


def test_a_manifest_of_samples_has_the_same_bytes_from_entries_and_from_files(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path).samples("train")
    table = pa.table([["a"], [0], ["text"]], schema=samples_schema("text"))
    written = place.write_shard(0, table, FINGERPRINT, quarantined=[{"sample_id": "b", "reason": "empty"}])
    place.write_manifest(1, FINGERPRINT, entries={0: written})
    from_entries = place.read("manifest.json")
    place.write_manifest(1, FINGERPRINT)
    assert place.read("manifest.json") == from_entries


def test_a_manifest_of_many_shards_is_written_in_little_memory(directory: ShardDirectory) -> None:
    """0.6 KiB a shard; it was 1.7 when every shard had a future, and every number of the file a string of its own."""
    known = {
        shard: {"file": f"part-{shard:05d}.parquet", "num_samples": 512, "sha256": "0" * 64} for shard in range(3000)
    }
    tracemalloc.start()
    directory.write_manifest(3000, FINGERPRINT, entries=known)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / 3000 < 1024


def test_the_digest_of_samples_is_of_what_teachers_see() -> None:
    def digest(label: int, image: bytes) -> str:
        return content_digest(pa.table([["a"], [label], [image]], schema=samples_schema("image")))

    assert digest(0, b"x") == digest(1, b"x") != digest(0, b"y")


REWRITTEN: dict[str, dict[str, Any]] = {
    "as pyarrow does": {},
    "without compression and dictionary": {"compression": "none", "use_dictionary": False},
    "compressed": {"compression": "zstd"},
    "in small pages": {"compression": "snappy", "use_dictionary": False, "data_page_size": 1 << 12},
    "in small plain pages": {"compression": "none", "use_dictionary": False, "data_page_size": 1 << 12},
    "in several row groups": {"compression": "none", "use_dictionary": False, "row_group_size": 100},
    "in pages of the second version": {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
    "in split streams of bytes": {
        "compression": "none",
        "use_dictionary": False,
        "column_encoding": {"features.list.element": "BYTE_STREAM_SPLIT"},
    },
}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("how", REWRITTEN.values(), ids=REWRITTEN)
def test_features_that_another_program_rewrote_have_their_values(
    directory: ShardDirectory, how: dict[str, Any], dtype: str
) -> None:
    """The mark of our layout survives in the metadata, the layout does not."""
    features = np.random.default_rng(1).normal(size=(300, 64)).astype(dtype)
    directory.write_shard(0, features_table([f"s{row}" for row in range(300)], features, dtype), FINGERPRINT)
    path = Path(directory.path) / "part-00000.parquet"
    table = pq.read_table(path)
    assert PLAIN_KEY in table.schema.metadata
    pq.write_table(table, path, **how)
    np.testing.assert_array_equal(directory.read_features(0)[1], features)


def test_features_that_are_no_vectors_of_one_width_are_refused(directory: ShardDirectory) -> None:
    path = Path(directory.path) / "part-00000.parquet"
    table = pq.read_table(path)
    lists = pa.array([[1.0], [1.0, 2.0], None], pa.list_(pa.float64()))
    pq.write_table(table.set_column(1, "features", lists), path)
    with pytest.raises(InputError, match="part-00000.parquet is damaged or foreign: its features are list"):
        directory.read_features(0)
    vectors = pa.array([[1.0], None, [2.0]], pa.list_(pa.float32(), 1))
    pq.write_table(table.set_column(1, "features", vectors), path)
    with pytest.raises(InputError, match="features are missing in it"):
        directory.read_features(0)


def test_a_flipped_bit_in_what_is_read_is_found_by_the_page_s_checksum(directory: ShardDirectory) -> None:
    path = Path(directory.path) / "part-00000.parquet"
    whole = path.read_bytes()
    at = whole.index(features_of(0).astype(np.float16).tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(InputError, match="part-00000.parquet is damaged or foreign: a page's checksum differs"):
        directory.read_features(0)
    at = whole.index(b"s0-0")
    path.write_bytes(whole[:at] + b"t" + whole[at + 1 :])
    with pytest.raises(InputError, match="part-00000.parquet is damaged or foreign"):
        directory.read_shard(0)


def _changed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        manifest = json.loads(content)
        change(manifest)
        return json.dumps(manifest, indent=1).encode()

    return apply


DAMAGED_MANIFESTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "binary": lambda content: bytes(range(256)),
    "a list": lambda content: b"[]",
    "num_samples NaN": _changed(lambda m: m.update(num_samples=float("nan"))),
    "num_samples negative": _changed(lambda m: m.update(num_samples=-5)),
    "num_samples another": _changed(lambda m: m.update(num_samples=6)),
    "no fingerprint": _changed(lambda m: m.pop("fingerprint")),
    "a shard without checksum": _changed(lambda m: m["shards"][0].pop("sha256")),
    "an entry missing": _changed(lambda m: m["shards"].pop(0)),
    "an entry twice": _changed(lambda m: m["shards"].append(m["shards"][1])),
    "a file elsewhere": _changed(lambda m: m["shards"][0].update(file="../../../secret.parquet")),
    "no width": _changed(lambda m: m.pop("feature_dim")),
}


@pytest.mark.parametrize("proved", [True, False], ids=["with digest", "as before"])
@pytest.mark.parametrize("damage", DAMAGED_MANIFESTS)
def test_a_damaged_manifest_is_a_fault_and_refused(directory: ShardDirectory, damage: str, proved: bool) -> None:
    path = Path(directory.path) / "manifest.json"
    if not proved:
        path.write_bytes(_changed(lambda m: m.pop("digest"))(path.read_bytes()))
        assert directory.faults() == []
    path.write_bytes(DAMAGED_MANIFESTS[damage](path.read_bytes()))
    faults = directory.faults()
    assert faults and all(line.startswith(f"{path} is damaged: ") and "Delete this file" in line for line in faults)
    with pytest.raises(InputError, match="manifest.json is damaged"):
        directory.missing_shards(range(2), FINGERPRINT)


@pytest.mark.parametrize(("old", "new"), [(b"cat", b"cow"), (b'"feature_dim": 4', b'"feature_dim": 5')])
def test_a_changed_fact_that_looks_right_is_found(directory: ShardDirectory, old: bytes, new: bytes) -> None:
    directory.write_manifest(2, FINGERPRINT, feature_dim=4, classes=["cat", "dog"])
    path = Path(directory.path) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(old, new))
    assert directory.faults() == [
        f"{path} is damaged: it was changed after it was written, as its digest shows. Delete this file and run the"
        " command that writes it again: whole shards are kept."
    ]


@pytest.mark.processes
def test_a_pipe_in_a_file_s_place_is_refused_at_once(directory: ShardDirectory) -> None:
    for name in ("part-00000.parquet", "manifest.json"):
        (Path(directory.path) / name).unlink()
        os.mkfifo(Path(directory.path) / name)
    with pytest.raises(InputError, match="part-00000.parquet is no file"):
        directory.read_features(0)
    with pytest.raises(InputError, match="manifest.json is no file"):
        directory.manifest()
