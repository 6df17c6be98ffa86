from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from aft_ray import datasets
from aft_ray.datasets import Item, Listing, list_samples
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.prepare import prepare
from aft_ray.datasets.rows import ListedRows
from aft_ray.datasets.shard_size import samples_per_shard
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace

pytestmark = pytest.mark.slow


def recipe(tmp_path: Path, **dataset: object) -> Recipe:
    return Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    )


def test_every_sample_lands_in_one_split_with_its_bytes_and_label(tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, source="image_folder", path=str(image_folder), samples_per_shard=7)
    manifests = prepare(given)
    seen = {}
    for split, manifest in manifests.items():
        store = open_store(given.workspace, split)
        assert manifest["classes"] == ["bottom", "top"]
        assert max(shard["num_samples"] for shard in manifest["shards"]) <= 7
        for index in range(store.num_shards):
            shard = store.read_shard(index)
            for sample_id, label, image in zip(shard["sample_id"], shard["label"], shard["image"], strict=True):
                assert (image_folder / sample_id).read_bytes() == image
                assert sample_id.startswith("top/") == bool(label)
                seen[sample_id] = split
    assert len(seen) == 60 and set(seen.values()) == {"train", "validation", "test"}


def test_a_sample_stays_in_its_split_when_others_go(image_folder: Path) -> None:
    config = DatasetConfig(source="image_folder", path=str(image_folder))

    def split_of() -> dict[str, str]:
        listing = list_samples(config)
        chosen = choose_splits(listing, config)
        return {listing.items[index].sample_id: split for split, indices in chosen.items() for index in indices}

    before = split_of()
    (image_folder / "top" / "07.png").unlink()
    after = split_of()
    assert len(after) == 59 and all(before[sample_id] == split for sample_id, split in after.items())


def test_preparing_again_changes_nothing(tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, source="image_folder", path=str(image_folder))
    prepare(given)
    files = {path: path.stat().st_mtime_ns for path in Path(given.workspace).rglob("*") if path.is_file()}
    prepare(given)
    assert files == {path: path.stat().st_mtime_ns for path in Path(given.workspace).rglob("*") if path.is_file()}


def test_a_shard_has_32_mib_or_512_samples(tmp_path: Path, image_folder: Path) -> None:
    def listing(num_bytes: int) -> Listing:
        items = tuple(Item(str(index), 0, num_bytes) for index in range(1000))
        return Listing("image", ("a",), items, lambda index: b"")

    assert samples_per_shard([ListedRows(listing(300), np.arange(1000))]) == 512
    assert samples_per_shard([ListedRows(listing(110_000), np.arange(1000))]) == 305
    assert samples_per_shard([ListedRows(listing(1 << 30), np.arange(1000))]) == 16
    (manifest, *_) = prepare(recipe(tmp_path, source="image_folder", path=str(image_folder))).values()
    assert manifest["fingerprint"]["samples_per_shard"] == 512


def test_pictures_that_stay_where_they_are_read_the_same(tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, source="image_folder", path=str(image_folder), copy=False)
    prepare(given)
    shard = open_store(given.workspace, "train").read_shard(0)
    assert [*shard["image"]] == [(image_folder / name).read_bytes() for name in shard["sample_id"]]
    path = Path(given.workspace) / "samples" / "train" / "part-00000.parquet"
    assert path.stat().st_size < 0.2 * sum(len(image) for image in shard["image"])
    with pytest.raises(
        InputError, match="dataset.copy is false, but the samples of mnist5k are not files of their own"
    ):
        prepare(recipe(tmp_path / "other", name="mnist5k", copy=False))


def test_unreadable_files_are_all_named_or_quarantined(tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "top" / "03.png").write_bytes(b"")
    (image_folder / "bottom" / "09.png").write_bytes(b"GIF? no")
    given = recipe(tmp_path, source="image_folder", path=str(image_folder), samples_per_shard=7)
    with pytest.raises(InputError) as caught:
        prepare(given)
    assert sorted(caught.value.faults[:2]) == [
        "Sample bottom/09.png cannot be read: it is not a picture.",
        "Sample top/03.png cannot be read: it is not a picture.",
    ]
    assert "2 samples quarantined, 0 allowed" in caught.value.faults[2]

    allowed = recipe(tmp_path, source="image_folder", path=str(image_folder), samples_per_shard=7, max_bad_samples=2)
    manifests = prepare(allowed).values()
    quarantined = [bad["sample_id"] for manifest in manifests for bad in manifest["quarantined"]]
    assert sorted(quarantined) == ["bottom/09.png", "top/03.png"]
    assert sum(manifest["num_samples"] for manifest in manifests) + len(quarantined) == 60

    (image_folder / "top" / "03.png").unlink()
    (image_folder / "bottom" / "09.png").unlink()
    mended = recipe(tmp_path / "again", source="image_folder", path=str(image_folder), samples_per_shard=7)
    assert sum(manifest["num_samples"] for manifest in prepare(mended).values()) == 58


def test_what_an_unfinished_run_left_of_other_samples_is_replaced(tmp_path: Path, image_folder: Path) -> None:
    broken = image_folder / "top" / "03.png"
    content = broken.read_bytes()
    broken.write_bytes(b"?")
    given = recipe(tmp_path, source="image_folder", path=str(image_folder), samples_per_shard=7)
    with pytest.raises(InputError):
        prepare(given)
    broken.write_bytes(content)
    assert sum(manifest["num_samples"] for manifest in prepare(given).values()) == 60


def test_changed_files_are_noticed(tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, source="image_folder", path=str(image_folder))
    prepare(given)
    picture = image_folder / "top" / "07.png"
    picture.write_bytes(picture.read_bytes() + b"more")
    with pytest.raises(
        InputError, match="The raw data changed after .*samples/.* was made: .*'aft-ray prepare --overwrite'"
    ):
        prepare(given)


def test_other_samples_in_the_workspace_are_refused_unless_overwritten(tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, source="image_folder", path=str(image_folder))
    prepare(given)
    (image_folder / "top" / "07.png").unlink()
    with pytest.raises(InputError, match="The raw data changed after .*--overwrite"):
        prepare(given)
    manifests = prepare(given, overwrite=True)
    assert sum(manifest["num_samples"] for manifest in manifests.values()) == 59


def test_an_empty_split_is_refused(tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, source="image_folder", path=str(image_folder), max_samples=2)
    with pytest.raises(InputError, match="No samples fall into split"):
        prepare(given)


def test_mnist_5k_has_500_of_each_digit(tmp_path: Path) -> None:
    given = recipe(tmp_path, name="mnist5k")
    manifests = prepare(given)
    assert sum(manifest["num_samples"] for manifest in manifests.values()) == 5000
    for digit in "0123456789":
        assert sum(manifest["samples_per_class"][digit] for manifest in manifests.values()) == 500
    image = open_store(Workspace.at(given.workspace), "test").read_shard(0)["image"][0]
    assert image.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            {"name": "mnist5"},
            "Unknown data set 'mnist5' in dataset.name. Did you mean 'mnist5k'? Known: amazon_reviews, ",
        ),
        ({"source": "image_folder", "path": "/nowhere"}, "dataset: the folder /nowhere does not exist"),
    ],
)
def test_faults_of_a_dataset(config: dict, fault: str) -> None:
    (line,) = datasets.faults(DatasetConfig(**config))
    assert fault in line


def test_a_folder_without_classes_is_refused(tmp_path: Path, image_folder: Path) -> None:
    (line,) = datasets.faults(DatasetConfig(source="image_folder", path=str(image_folder / "top")))
    assert "must have at least two folders with images" in line


def test_pipes_sockets_devices_and_huge_files_are_bad_samples_that_nobody_opens(
    tmp_path: Path, image_folder: Path
) -> None:
    os.mkfifo(image_folder / "top" / "fifo.png")
    (image_folder / "top" / "null.png").symlink_to("/dev/zero")
    with (image_folder / "top" / "sparse.png").open("wb") as stream:
        stream.truncate(50 << 30)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(image_folder / "top" / "socket.png"))
        for copy in (True, False):
            given = recipe(
                tmp_path / str(copy), source="image_folder", path=str(image_folder), max_bad_samples=4, copy=copy
            )
            quarantined = {
                bad["sample_id"]: bad["reason"] for found in prepare(given).values() for bad in found["quarantined"]
            }
            assert quarantined == {
                "top/fifo.png": "it is no plain file",
                "top/null.png": "it is no plain file",
                "top/socket.png": "it is no plain file",
                "top/sparse.png": "it has 53,687,091,200 bytes, more than 1,073,741,824",
            }


def test_a_picture_for_which_memory_is_too_small_is_quarantined(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(encoded: bytes, max_pixels: int | None) -> object:
        raise MemoryError

    monkeypatch.setattr("aft_ray.datasets.shard_writing.open_picture", opened)
    with pytest.raises(InputError, match="Sample .* cannot be read: it takes more memory than there is."):
        prepare(recipe(tmp_path, source="image_folder", path=str(image_folder)))
