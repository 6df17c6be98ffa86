"""A picture of several pairs is decoded and embedded once, and its features stand in the rows of all its pairs."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.estimate import plan
from aft_ray.extraction.extract import extract
from aft_ray.extraction.features import RESULT, EmbedShard
from aft_ray.extraction.plan import plan_extraction
from aft_ray.extraction.reading import CROPS, ReadShard
from aft_ray.models.images import ImageTransform
from aft_ray.recipe.config import Recipe, override
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.inputs.batches import load_split
from tests.datasets.named.test_hub_tasks import extract_here
from tests.extraction.test_extract_faults import when_calls
from tests.helpers.own_teachers import calls
from tests.helpers.pairs import LENGTHS, MEANS, PAIRS, encoded, recipe, write_pairs

SPLITS = ("train", "validation")


def logged(tmp_path: Path, **options: object) -> list[dict[str, Any]]:
    return [{**MEANS, "options": {"log": str(tmp_path / "log"), **options}}, LENGTHS]


def embedded(tmp_path: Path) -> int:
    return sum(count for _, count in calls(tmp_path / "log"))


def num_pictures(given: Recipe) -> int:
    manifests = [Workspace.at(given.workspace).samples(split).manifest() or {} for split in SPLITS]
    return sum(shard["num_pictures"] for manifest in manifests for shard in manifest["shards"])


def features(given: Recipe) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for split in SPLITS:
        store = open_store(given.workspace, split, ["means", "lengths"])
        for index in range(store.num_shards):
            shard = store.read_shard(index)
            found |= dict(zip(shard["sample_id"], shard["features"], strict=True))
    return found


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each picture is decoded from now on."""
    decoded = Counter[bytes]()
    whole = ImageTransform.decode

    def decode(self: ImageTransform, content: bytes) -> object:
        decoded[content] += 1
        return whole(self, content)

    monkeypatch.setattr(ImageTransform, "decode", decode)
    return decoded


@pytest.mark.parametrize("copy", [True, False])
def test_each_picture_is_decoded_and_embedded_once(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, copy: bool
) -> None:
    pictures = encoded(image_folder)
    where = pictures if copy else {name: str(image_folder / name) for name in pictures}
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", where)
    keys: dict[str, Any] = {"samples_per_shard": 100, "copy": copy}
    if not copy:
        root = {"image_root": str(image_folder)}
        keys["columns"] = {"image": "image", "text": "text", "id": "id", "group": "filename", "label": "label"} | root
    given = recipe(tmp_path / "work", file, logged(tmp_path), **keys)
    prepare(given)
    decoded = counted(monkeypatch)
    extract_here(given)
    found = features(given)
    assert embedded(tmp_path) == num_pictures(given) == len(decoded) == len(found) / PAIRS
    assert set(decoded.values()) == {1}
    for sample_id, row in found.items():
        name, _, number = sample_id.rpartition("#")
        text = f"sentence {number} about {name}"
        own = ImageTransform(8)(pictures[name]).reshape(-1) / np.float32(255)
        np.testing.assert_allclose(row[:-2], own, atol=1e-3)
        assert row[-2:].tolist() == [len(text), sum(map(text.count, "aeiou"))]


def test_views_differ_from_pair_to_pair_and_the_whole_picture_does_not(tmp_path: Path, image_folder: Path) -> None:
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", encoded(image_folder), pairs=3)
    given = override(recipe(tmp_path / "work", file, [MEANS]), {"train.views": 2})
    prepare(given)
    todo = plan_extraction(given)
    watch = Watch(AttemptsHere(), "this test", 0)
    row = ReadShard(todo.workspace, todo.descriptions, watch)(todo.missing[0])
    counts = [len(row[CROPS + name]) for name in todo.views["means"]]
    assert counts == [len(row["sample_id"]) // 3, len(row["sample_id"])]
    place = todo.missing[0].split, todo.missing[0].shard
    assert [todo.num_inputs(name, *place) for name in todo.views["means"]] == counts
    extract_here(given)
    store = open_store(given.workspace, "train", todo.views["means"])
    shard = store.read_shard(0, side_by_side=False)
    first = [index for index, name in enumerate(shard["sample_id"]) if name.startswith(shard["sample_id"][0][:-1])]
    whole, view = (np.unique(block[first], axis=0) for block in shard["features"])
    assert (len(first), len(whole), len(view)) == (3, 1, 3)


def test_a_picture_that_crashes_a_process_is_tried_once_and_puts_aside_all_its_pairs(
    tmp_path: Path, image_folder: Path
) -> None:
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", encoded(image_folder))
    given = recipe(tmp_path / "work", file, [MEANS])
    prepare(given)
    todo, attempts = plan_extraction(given), AttemptsHere()
    missing = todo.missing[0]

    def watch(work: str) -> Watch:
        for _ in range(2):  # processes that died at the third picture, alone
            attempts.begin(f"{work}, shard 0 of train")
            attempts.alone(f"{work}, shard 0 of train", 2)
        return Watch(attempts, work, PAIRS)

    row = ReadShard(todo.workspace, todo.descriptions, watch("decoding"))(missing)
    ids = row["sample_id"]
    culprits = {row for row, number in enumerate(row["picture"]) if number == 2}
    bad = row["quarantined"]
    assert set(bad) == culprits and len(culprits) == PAIRS and not row[CROPS + "means"][2].any()
    assert all(bad[number]["sample_id"] == ids[number] for number in culprits)
    row = ReadShard(todo.workspace, todo.descriptions, Watch(AttemptsHere(), "decoding", 0))(missing)
    prints = {"means": todo.fingerprints["means"]}
    row = EmbedShard(todo.teachers[0], todo.workspace, prints, watch("teacher 'means'"))(row)
    entry = row[RESULT + "means"]["entry"]
    assert [sample["sample_id"] for sample in entry["quarantined"]] == [ids[number] for number in sorted(culprits)]
    assert entry["num_samples"] == len(ids) - PAIRS


def test_rows_that_share_a_picture_are_decoded_once_for_a_student(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", encoded(image_folder))
    given = recipe(tmp_path / "work", file, samples_per_shard=100)
    count = sum(shard["num_pictures"] for shard in prepare(given)["train"]["shards"])
    decoded = counted(monkeypatch)
    store = open_store(given.workspace, "train")
    split = load_split(store, (), [ImageTransform(8)])
    assert decoded.total() == count and isinstance(split.inputs, np.ndarray) and len(split.inputs) == store.num_samples


@pytest.mark.ray
def test_the_plan_counts_pictures_and_a_killed_extraction_goes_on_bit_for_bit(
    cluster: None, tmp_path: Path, image_folder: Path
) -> None:
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", encoded(image_folder))
    keys = {"samples_per_shard": 100}
    quiet = recipe(tmp_path / "quiet", file, [MEANS, LENGTHS], **keys)
    listed = plan(quiet)
    prepare(quiet)
    for told in (listed, plan(quiet)):
        total = sum(told.samples.values())
        assert [teacher.samples for teacher in told.teachers] == [num_pictures(quiet), total]
        assert total == PAIRS * num_pictures(quiet)
        assert told.teachers[0].feature_bytes == 2 * 192 * total
    extract_here(quiet)

    given = recipe(tmp_path / "killed", file, logged(tmp_path, pause_s=0.2), **keys)
    prepare(given)
    killer = when_calls(given, 5, lambda found: os.kill(found[-1][0], signal.SIGKILL))
    extract(given)
    killer.join()
    assert len({pid for pid, _ in calls(tmp_path / "log")}) == 2
    assert embedded(tmp_path) <= num_pictures(given) + 100 // PAIRS

    def shards(workspace: str) -> dict[str, bytes]:
        root = Path(workspace, "features")
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("part-*")}

    assert shards(given.workspace) == shards(quiet.workspace)
