"""Pairs that share pictures are sorted on disk into the samples, byte for byte, that one process makes in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow.fs import LocalFileSystem

from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets import items
from aft_ray.datasets.buckets import keyed
from aft_ray.datasets.buckets.keyed import KeyedFiles, write_keyed
from aft_ray.datasets.prepare import prepare
from aft_ray.store.files import Directory
from tests.datasets.buckets.test_buckets import KINDS, here_and_there, recipe
from tests.helpers.small_data import samples_of, write_pairs
from tests.helpers.tasks import elsewhere

pytestmark = pytest.mark.slow

KEYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fractions": {"validation_fraction": 0.3, "test_fraction": 0.05, "split_seed": 3},
    "few of each class": {"max_samples": 70, "train_fraction": 0.4, "samples_per_shard": 5},
    "no rows a shard": {"samples_per_shard": None, "train_fraction": 0.7},
    "few shares": {"stratify": True, "max_samples": 70, "validation_fraction": 0.4, "train_fraction": 0.6},
    "none in common": {"max_samples": 8, "validation_fraction": 0.3, "test_fraction": 0.3},
    "in place": {"copy": False, "max_samples": 80},
    "one row a shard": {"samples_per_shard": 1, "max_samples": 40},
    "several": {"task": "multilabel"},
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("place", "group", "kind", "keys"),
    [
        *(("files", False, "classes", keys) for keys in KEYS),
        *(("tables", True, "classes", keys) for keys in KEYS if keys not in ("in place", "few shares")),
        ("files", True, "some without", "plain"),
        ("files", True, "some without", "no rows a shard"),
        ("files", True, "own splits", "few of each class"),
        ("files", False, "own splits", "no rows a shard"),
        ("files", False, "own test", "few shares"),
        ("tables", False, "some without", "fractions"),
        ("tables", True, "own splits", "no rows a shard"),
        ("tables", True, "own test", "fractions"),
    ],
)
def test_buckets_write_the_pairs_that_one_process_writes(
    tmp_path: Path, place: str, group: bool, kind: str, keys: str
) -> None:
    given = write_pairs(tmp_path / "pairs", place, *KINDS[kind], crowding=1 if keys == "none in common" else 3)
    columns = given["columns"] | ({"group": "picture"} if group else {})
    columns |= {"label": "several"} if keys == "several" else {}
    given |= {"samples_per_shard": 7, "max_bad_samples": 30, **KEYS[keys], "columns": columns}
    here, there, called = here_and_there(tmp_path, given)
    assert here == there and isinstance(here, dict)
    assert samples_of(tmp_path / "here") == samples_of(tmp_path / "there")
    is_by_picture = place == "files" or group
    assert (called.count("gather_pairs"), called.count("order_bucket")) == (is_by_picture, is_by_picture)
    assert [manifest["fingerprint"].get("order") for manifest in here.values()] == 3 * [
        "picture" if is_by_picture and keys != "none in common" else None
    ]
    assert not (tmp_path / "there" / "listing").exists()


@pytest.mark.usefixtures("small")
def test_pictures_whose_names_have_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def coarse(salt: str, texts: pa.ChunkedArray) -> np.ndarray:
        return np.round(items.unit_hashes(salt, texts), 1)

    monkeypatch.setattr("aft_ray.datasets.buckets.pictures.unit_hashes", coarse)
    given = write_pairs(tmp_path / "pairs", "files") | {"samples_per_shard": 7, "max_bad_samples": 30}
    here = prepare(recipe(tmp_path / "here", **given))
    there = prepare(recipe(tmp_path / "there", **given, distributed="always"), helpers=Helpers(elsewhere))
    assert here == there and samples_of(tmp_path / "here") == samples_of(tmp_path / "there")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("by_picture", [True, False])
def test_a_lost_split_is_made_again_in_the_order_of_the_others(
    tmp_path: Path, by_picture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this version would choose for new samples."""
    given = write_pairs(tmp_path / "pairs", "files") | {"samples_per_shard": 7, "max_bad_samples": 30}
    given |= {"max_samples": 40, "distributed": "always"}
    with monkeypatch.context() as patch:
        if not by_picture:
            patch.setattr("aft_ray.datasets.samples.pictures_of", lambda listing: None)
        prepare(recipe(tmp_path / "work", **given))
    made = samples_of(tmp_path / "work")
    assert (b'"order": "picture"' in made["samples/test/manifest.json"]) == by_picture
    shutil.rmtree(tmp_path / "work" / "samples" / "train")
    monkeypatch.setattr("aft_ray.datasets.samples.pairs_of_picture", lambda *_: pytest.fail("in one process"))
    prepare(recipe(tmp_path / "work", **given), helpers=Helpers(elsewhere))
    assert samples_of(tmp_path / "work") == made


def test_rows_in_buckets_of_keys_are_all_there_and_buckets_are_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyed.files, "ROWS_OF_BATCH", 4)
    place, random = Directory(LocalFileSystem(), str(tmp_path)), np.random.default_rng(0)
    found = [np.append(random.integers(0, 1000, count), 30 * [500]) for count in (70, 0, 90)] + [np.array([], np.int64)]
    heads = [
        write_keyed(place, f"some-{number:05d}.arrow", pa.table({"row": np.arange(len(keys))}), keys)
        for number, keys in enumerate(found)
    ]
    files = KeyedFiles.of(place, "some", heads, 20)
    tables = [files.rows(bucket) for (bucket,) in files.buckets()]
    keys = [table.column(keyed.KEY).to_numpy() for table in tables]
    assert sorted(np.concatenate(keys)) == sorted(np.concatenate(found))
    assert all(low.max() < high.min() for low, high in zip(keys, keys[1:], strict=False))
    assert all(len(own) < 40 or len(set(own)) == 1 or 500 in own for own in keys) and len(keys) > 6
