"""Folders as people have them: splits, hidden files, links. A file that is no sample is counted, never taken for one."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from aft_ray.datasets import Listing, list_samples
from aft_ray.datasets.prepare import prepare
from aft_ray.datasets.unlabelled import list_unseen
from aft_ray.recipe.columns_section import ColumnsConfig
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (hash(path.name) % 200, 0, 0)).save(path, "PNG")


def folder(path: Path, **keys: object) -> Listing:
    return list_samples(DatasetConfig.model_validate(dict(source="image_folder", path=str(path), **keys)))


def test_splits_are_known_whatever_their_capitals(tmp_path: Path) -> None:
    draw(*(tmp_path / split / name / "1.png" for split in ("Training", "Testing") for name in ("cat", "dog")))
    listing = folder(tmp_path)
    assert listing.classes == ("cat", "dog") and {item.split for item in listing.items} == {"train", "test"}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/dog/1.png", "odd/1.png"], "but odd is no split"),
        (["train/cat/1.png", "train/dog/1.png", "test/1.png"], "test has pictures outside folders of classes"),
        (["Training/1.png", "Testing/1.png"], "Testing, Training have pictures outside folders of classes"),
        (["train/cat/1.png", "train/dog/1.png", "train/stray.png"], "train has pictures outside folders of classes"),
    ],
)
def test_a_folder_of_splits_and_other_things_is_refused(tmp_path: Path, files: list[str], told: str) -> None:
    draw(*(tmp_path / file for file in files))
    with pytest.raises(InputError, match=told) as refused:
        folder(tmp_path)
    assert "dataset.splits" in str(refused.value) and "dataset.path" in str(refused.value)


def test_splits_that_the_recipe_names_are_read_and_the_others_are_not(tmp_path: Path) -> None:
    draw(*(tmp_path / split / name / "1.png" for split in ("train", "val", "odd") for name in ("cat", "dog")))
    listing = folder(tmp_path, splits={"train": "Train", "validation": "val"})
    assert listing.classes == ("cat", "dog") and len(listing.items) == 4


def test_hidden_files_and_folders_are_neither_classes_nor_samples(tmp_path: Path) -> None:
    draw(*(tmp_path / name / "1.png" for name in ("cat", "dog", ".ipynb_checkpoints", "__MACOSX")))
    draw(tmp_path / "cat" / ".ipynb_checkpoints" / "1-checkpoint.png", tmp_path / "dog" / "._1.png")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    listing = folder(tmp_path)
    assert [item.sample_id for item in listing.items] == ["cat/1.png", "dog/1.png"]
    assert listing.left_out == {"hidden": 5}


def test_links_to_folders_are_followed_once_and_a_circle_ends(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "1.png", tmp_path / "data" / "cat" / "1.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "bird")
    os.symlink(tmp_path / "data", tmp_path / "data" / "cat" / "up")
    assert [item.sample_id for item in folder(tmp_path / "data").items] == ["bird/1.png", "cat/1.png"]


def test_every_suffix_of_a_picture_counts_for_folders_tars_and_predictions(tmp_path: Path) -> None:
    draw(tmp_path / "bird" / "1.jfif", tmp_path / "cat" / "1.PNG", tmp_path / "dog" / "1.pgm")
    (tmp_path / "scan01.tif").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    listing = folder(tmp_path)
    assert listing.classes == ("bird", "cat", "dog") and listing.left_out == {".txt": 1}
    assert list_unseen(str(tmp_path), ["image"]).table.num_rows == 3
    with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
        for item in listing.items:
            tar.add(tmp_path / item.sample_id, item.sample_id)
    config = DatasetConfig(source="webdataset", path=str(tmp_path / "pictures.tar"), columns=ColumnsConfig(label=()))
    found = list_samples(config)
    assert found.left_out == {} and all(found.read(number) for number in range(3))


def test_a_broken_link_is_a_bad_sample_and_what_was_left_out_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(*(tmp_path / "data" / name / f"{number}.png" for name in ("cat", "dog") for number in range(12)))
    os.symlink(tmp_path / "nowhere.png", tmp_path / "data" / "cat" / "gone.png")
    (tmp_path / "data" / "cat" / "a.csv").write_text("x")
    dataset = {"source": "image_folder", "path": str(tmp_path / "data"), "max_bad_samples": 1}
    recipe = {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    manifests = prepare(Recipe.model_validate(recipe))
    bad = [sample["sample_id"] for manifest in manifests.values() for sample in manifest["quarantined"]]
    assert bad == ["cat/gone.png"]
    assert "prepare left out, as no samples: 1 .csv." in capsys.readouterr().err


def test_two_links_to_one_folder_are_refused_because_a_class_would_be_lost(tmp_path: Path) -> None:
    draw(tmp_path / "cat" / "1.png", tmp_path / "dog" / "1.png")
    os.symlink(tmp_path / "cat", tmp_path / "kitten")
    with pytest.raises(InputError, match=r"cat and .*kitten are one folder"):
        folder(tmp_path)


def test_pictures_of_no_class_and_broken_links_to_folders_are_told(tmp_path: Path) -> None:
    draw(tmp_path / "cat" / "1.png", tmp_path / "dog" / "1.png", tmp_path / "stray.png")
    os.symlink(tmp_path / "nowhere", tmp_path / "bird")
    assert folder(tmp_path).left_out == {"broken link": 1, "outside the folders of classes": 1}


def test_train_with_classes_beside_a_flat_folder_is_no_class(tmp_path: Path) -> None:
    draw(*(tmp_path / name / "1.png" for name in ("train/cat", "train/dog", "single_prediction")))
    with pytest.raises(InputError, match="train looks like a split, but single_prediction is no split"):
        folder(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    draw(*(tmp_path / name / "1.png" for name in ("train/old", "bus/old", "bus/new")))
    assert folder(tmp_path).classes == ("bus", "train")


def test_splits_without_train_are_no_classes(tmp_path: Path) -> None:
    draw(*(tmp_path / split / name / "1.png" for split in ("val", "test") for name in ("cat", "dog")))
    with pytest.raises(InputError, match="test, val look like splits, but none is train"):
        folder(tmp_path)


def test_a_pipe_and_a_file_far_too_large_are_bad_samples(tmp_path: Path) -> None:
    draw(tmp_path / "cat" / "1.png", tmp_path / "dog" / "1.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    with (tmp_path / "dog" / "sparse.png").open("wb") as file:
        file.truncate(50 << 30)
    listing = folder(tmp_path)
    for index, told in ((1, "no plain file"), (3, "53,687,091,200 bytes")):
        with pytest.raises(ValueError, match=told):
            listing.read(index)


def test_hidden_pictures_are_not_predicted(tmp_path: Path) -> None:
    draw(*(tmp_path / name for name in ("a.png", "._a.png", "__MACOSX/a.png", "b/.ipynb_checkpoints/a.png")))
    assert list_unseen(str(tmp_path), ["image"]).table.column("id").to_pylist() == ["a.png"]
