"""A manifest of many shards lies in parts; whoever reads it finds the same as in one file."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aft_ray.commands.verify import Checked
from aft_ray.recipe.errors import InputError
from aft_ray.store import manifest_parts
from aft_ray.store.manifest import MANIFEST
from aft_ray.store.own_files import delete_own_files
from aft_ray.store.parquet import features_table
from aft_ray.store.schema import samples_schema
from aft_ray.store.shards import ShardDirectory, samples_fingerprint
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace

SHARDS = 8


@pytest.fixture
def whole(tmp_path: Path) -> Workspace:
    """Samples and features in eight shards, with manifests of one file."""
    workspace = Workspace.at(tmp_path / "work")
    for split in ("train", "validation", "test"):
        write(workspace, split)
    return workspace


@pytest.fixture
def parted(tmp_path: Path, whole: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The same with manifests of three parts."""
    monkeypatch.setattr(manifest_parts, "PART_SHARDS", 3)
    shutil.copytree(whole.path, tmp_path / "parted")
    workspace = Workspace.at(tmp_path / "parted")
    for directory in workspace.stores():
        manifest = directory.manifest()
        assert manifest is not None
        keys = ("num_samples", "quarantined", "fingerprint", "shards")
        facts = {key: value for key, value in manifest.items() if key not in keys}
        directory.write_manifest(SHARDS, manifest["fingerprint"], **facts)
    return workspace


def write(workspace: Workspace, split: str) -> None:
    samples, features = workspace.samples(split), workspace.features("one", split)
    ids = [[f"{split}-{shard}-{row}" for row in range(3)] for shard in range(SHARDS)]
    for shard in range(SHARDS):
        columns = [ids[shard], [row % 2 for row in range(3)], [b"picture"] * 3]
        samples.write_shard(shard, pa.table(columns, schema=samples_schema("image")), {"split": split})
    per_class = {"a": 2 * SHARDS, "b": SHARDS}
    facts: dict[str, Any] = {
        "modality": "image",
        "task": "classification",
        "classes": ["a", "b"],
        "samples_per_class": per_class,
    }
    manifest = samples.write_manifest(SHARDS, {"split": split}, **facts)
    fingerprint = {"made": "so", "samples": samples_fingerprint(manifest)}
    for shard in range(SHARDS):
        features.write_shard(shard, features_table(ids[shard], np.full((3, 4), shard)), fingerprint)
    features.write_manifest(SHARDS, fingerprint, feature_dim=4)


def train_of(workspace: Workspace) -> ShardDirectory:
    return workspace.samples("train")


def test_readers_find_the_same_shards(whole: Workspace, parted: Workspace) -> None:
    one, parts = train_of(whole).manifest(), train_of(parted).manifest()
    assert one is not None and parts is not None
    assert "shards" not in json.loads(train_of(parted).read(MANIFEST))
    assert sum(name.startswith("shards-") for name in train_of(parted).names()) == 3
    assert parts == one and parts["shards"][:] == one["shards"] and parts["shards"][-1] == one["shards"][-1]
    assert pickle.loads(pickle.dumps(parts)) == one and samples_fingerprint(parts) == samples_fingerprint(one)
    assert train_of(parted).missing_shards(range(SHARDS + 1), {"split": "train"}) == [SHARDS]
    stores = [open_store(workspace.path, "train", ["one"]) for workspace in (whole, parted)]
    assert [store.num_shards for store in stores] == [SHARDS, SHARDS]
    for shard in (7, 0, 3):
        found, expected = (store.read_shard(shard) for store in stores)
        assert found["sample_id"] == expected["sample_id"]
        np.testing.assert_array_equal(found["features"], expected["features"])


def test_few_shards_have_the_file_of_before(whole: Workspace) -> None:
    text = train_of(whole).read(MANIFEST).decode()
    assert '"parts"' not in text and text.count('\n  {"file": "part-0000') == SHARDS
    assert [name for name in train_of(whole).names() if not name.startswith("part-")] == [MANIFEST]


def test_verify_finds_a_part_that_was_changed_or_lost(parted: Workspace) -> None:
    assert faults(parted) == []
    first, second = sorted(Path(train_of(parted).path).glob("shards-*"))[:2]
    first.write_bytes(first.read_bytes().replace(b'"num_samples": 3', b'"num_samples": 2', 1))
    (fault,) = faults(parted)
    assert str(first) in fault and "as its digest shows" in fault and "Delete manifest.json beside it" in fault
    first.unlink()
    (fault,) = faults(parted)
    assert f"{first} is damaged: it is missing" in fault
    manifest = train_of(parted).manifest()
    assert manifest is not None and manifest["shards"][4]["file"] == "part-00004.parquet"  # of another part
    with pytest.raises(InputError, match="it is missing"):
        list(manifest["shards"])
    assert second.exists()


def test_a_manifest_that_is_written_again_leaves_no_parts_of_before(
    parted: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = train_of(parted)
    facts: dict[str, Any] = {"modality": "image", "classes": ["a", "b"]}
    before = set(directory.names())
    directory.write_manifest(5, {"split": "train"}, **facts)
    after = set(directory.names())
    assert sum(name.startswith("shards-") for name in after) == 2 and not after <= before
    monkeypatch.setattr(manifest_parts, "PART_SHARDS", 100)
    directory.write_manifest(5, {"split": "train"}, **facts)
    assert not any(name.startswith("shards-") for name in directory.names())


def test_only_parts_that_aft_ray_wrote_are_deleted(parted: Workspace) -> None:
    directory = train_of(parted)
    foreign = "shards-00000-0123456789abcdef.json"
    directory.write(foreign, b'{"shards": []}')
    directory.write_manifest(5, {"split": "train"}, modality="image", classes=["a", "b"])
    delete_own_files(directory)
    assert directory.names() == [foreign]


def faults(workspace: Workspace) -> list[str]:
    checked = Checked(workspace)
    checked.stores()
    return checked.faults
