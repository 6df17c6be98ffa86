"""Pairs of one picture lie in one shard, which stores the picture once; other samples are as they always were."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aft_ray.datasets.base import Listing
from aft_ray.datasets.items import Item
from aft_ray.datasets.pairs import begin_pictures, cuts, pictures_of, side_by_side
from aft_ray.datasets.prepare import prepare
from aft_ray.datasets.rows import ListedRows
from aft_ray.datasets.shard_size import pairs_per_picture
from aft_ray.datasets.sources.contents import Spool
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import SPLITS
from aft_ray.store.side_by_side import open_store
from tests.datasets.test_helpers import files
from tests.helpers.pairs import PAIRS, encoded, recipe, write_pairs

pytestmark = pytest.mark.slow


def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are made as before: in the order of their ids' hashes."""
    monkeypatch.setattr("aft_ray.datasets.samples.pictures_of", lambda listing: None)


def shards(given: Recipe, split: str) -> list[dict[str, Any]]:
    store = open_store(given.workspace, split)
    return [store.read_shard(index) for index in range(store.num_shards)]


def content(given: Recipe, split: str) -> dict[str, list[Any]]:
    columns = ("label", "image", "text")
    rows = (zip(shard["sample_id"], *(shard[name] for name in columns), strict=True) for shard in shards(given, split))
    return {sample_id: rest for own in rows for sample_id, *rest in own}


def test_a_picture_is_stored_once_and_the_samples_are_the_same(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", encoded(image_folder))
    now, before = (recipe(tmp_path / name, file, samples_per_shard=100) for name in ("now", "before"))
    manifests = prepare(now)
    with monkeypatch.context() as patch:
        apart(patch)
        prepare(before)
    for split in SPLITS:
        assert content(now, split) == content(before, split)
        found = [{name.rpartition("#")[0] for name in shard["sample_id"]} for shard in shards(now, split)]
        assert sum(map(len, found)) == len(set().union(*found)), "a picture's pairs lie in one shard"
        assert [entry["num_pictures"] for entry in manifests[split]["shards"]] == list(map(len, found))
        assert all(entry["num_samples"] <= 100 for entry in manifests[split]["shards"])
        assert all(len(set(map(id, shard["image"]))) == len(set(shard["image"])) for shard in shards(now, split))
    first = [(tmp_path / name / "samples/train/part-00000.parquet").stat().st_size for name in ("now", "before")]
    pictures = sum(map(len, set(shards(now, "train")[0]["image"])))
    assert pictures < first[0] < 1.3 * pictures and first[1] > 5 * first[0]


def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of contents that are copied to temporary files from now on."""
    sizes: list[int] = []
    write = Spool._write

    def counted(self: Spool, content: bytes) -> int:
        sizes.append(len(content))
        return write(self, content)

    monkeypatch.setattr(Spool, "_write", counted)
    return sizes


def test_a_picture_is_copied_once_on_the_way_and_the_store_is_the_same_bit_for_bit(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = encoded(image_folder)
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", pictures)
    now, before = (recipe(tmp_path / name, file, samples_per_shard=100) for name in ("now", "before"))
    sizes = copied(monkeypatch)
    prepare(now)
    of_texts = sum(size for size in sizes if size < 60)
    assert sum(sizes) - of_texts == sum(len(picture) + 1 for picture in set(pictures.values()))
    monkeypatch.setattr("aft_ray.datasets.sources.contents.MOST_REMEMBERED", 0)
    sizes.clear()
    prepare(before)
    assert len(sizes) == 2 * PAIRS * len(pictures), "as it once was"
    assert files(tmp_path / "now") == files(tmp_path / "before")


def test_samples_without_a_common_picture_are_written_as_before(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", encoded(image_folder), pairs=1)
    prepare(recipe(tmp_path / "now", file, samples_per_shard=9))
    apart(monkeypatch)
    prepare(recipe(tmp_path / "before", file, samples_per_shard=9))
    assert files(tmp_path / "now") == files(tmp_path / "before")


def test_samples_of_before_are_kept_and_a_lost_shard_of_them_is_made_again(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", encoded(image_folder))
    given = recipe(tmp_path / "work", file, samples_per_shard=100)
    with monkeypatch.context() as patch:
        apart(patch)
        manifests = prepare(given)
    made = files(tmp_path / "work")
    assert prepare(given) == manifests and files(tmp_path / "work") == made
    lost = tmp_path / "work" / "samples" / "train" / "part-00001.parquet"
    lost.unlink()
    prepare(given)
    assert files(tmp_path / "work") == made
    assert "order" in prepare(given, overwrite=True)["train"]["fingerprint"]
    assert files(tmp_path / "work") != made


def test_pictures_that_stay_where_they_are_count_once_too(tmp_path: Path, image_folder: Path) -> None:
    paths = {name: str(image_folder / name) for name in encoded(image_folder)}
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", paths)
    columns = {
        "image": "image",
        "text": "text",
        "id": "id",
        "label": "label",
    }  # the files say which pairs belong together
    root = columns | {"image_root": str(image_folder)}
    copied, kept = (
        recipe(tmp_path / name, file, columns=root, samples_per_shard=100, copy=name == "copied")
        for name in ("copied", "kept")
    )
    one, other = prepare(copied), prepare(kept)
    for split in SPLITS:
        assert content(copied, split) == content(kept, split)
        counts = [[shard["num_pictures"] for shard in manifests[split]["shards"]] for manifests in (one, other)]
        assert counts[0] == counts[1]
    assert sum(shard["num_pictures"] for shard in one["train"]["shards"]) <= 60


def test_a_broken_picture_puts_aside_all_its_pairs(tmp_path: Path, image_folder: Path) -> None:
    pictures = encoded(image_folder) | {"top/03.png": b"no picture"}
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", pictures)
    manifests = prepare(recipe(tmp_path / "work", file))
    bad = [sample["sample_id"] for manifest in manifests.values() for sample in manifest["quarantined"]]
    assert sorted(bad) == sorted(f"top/03.png#{number}" for number in range(PAIRS))
    with pytest.raises(InputError, match="17 samples quarantined, 16 allowed"):
        prepare(recipe(tmp_path / "few", file, max_bad_samples=16))


def test_a_shard_has_room_for_512_pictures_and_few_pairs_more(tmp_path: Path, image_folder: Path) -> None:
    file = write_pairs(tmp_path / "raw" / "pairs.parquet", encoded(image_folder))
    rows = prepare(recipe(tmp_path / "work", file))["train"]["fingerprint"]["samples_per_shard"]
    assert rows == 512 * PAIRS
    items, numbers = tuple(Item(str(number), 0) for number in range(1000)), np.zeros(1000, int)
    one = Listing("image+text", ("a",), items, lambda index: (b"picture", f"text {index}"))
    many = Listing("image+text", ("a",), items, lambda index: (f"picture {index}".encode(), "text"))
    assert pairs_per_picture([ListedRows(one, np.arange(1000), numbers, 1000.0)]) == 32
    assert pairs_per_picture([ListedRows(one, np.arange(1000), numbers, 2.5)]) == 2.5
    assert pairs_per_picture([ListedRows(many, np.arange(1000), numbers, 1000.0)]) == 1, "a group has several pictures"


@pytest.mark.parametrize("chunk", [1, 3, 12])
def test_shards_are_cut_between_pictures_unless_one_is_larger(chunk: int) -> None:
    """The pairs are told some at a time."""
    pictures = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 3])
    begins = begin_pictures(pictures)
    assert np.flatnonzero(begins).tolist() == [0, 3, 5, 11]

    def found(begins: np.ndarray, rows: int) -> list[int]:
        return cuts((begins[start : start + chunk] for start in range(0, len(begins), chunk)), rows)

    assert found(begins, 5) == [0, 5, 10, 12]
    assert found(begins, 4) == [0, 3, 5, 9, 12]
    assert found(begins, 2) == [0, 2, 3, 5, 7, 9, 11, 12]
    assert found(begin_pictures(np.zeros(12, int)), 5) == [0, 5, 10, 12]
    assert found(begins, 100) == [0, 12] and found(begins, 12) == [0, 12] and found(begins[:0], 4) == [0]
    mixed = np.array([3, 0, 1, 0, 3, 2])
    assert side_by_side(np.arange(6), mixed).tolist() == [0, 4, 1, 3, 2, 5]


def test_only_pairs_that_may_have_a_picture_in_common_are_moved() -> None:
    def listing(modality: Any, groups: list[str | None]) -> Listing:
        items = tuple(Item(str(number), 0, group=group) for number, group in enumerate(groups))
        return Listing(modality, ("a",), items, lambda index: b"")

    assert pictures_of(listing("image", ["a", "a"])) is None and pictures_of(listing("text", ["a", "a"])) is None
    assert pictures_of(listing("image+text", [None, None])) is None
    found = pictures_of(listing("image+text", ["a", None, "a", "b"]))
    assert found is not None and math.prod(found[[0, 2]] == found[0]) and len(set(found.tolist())) == 3
