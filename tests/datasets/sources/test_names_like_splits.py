"""Folders, files and tars with longer names of splits are never taken for classes, or for one pool, without a word."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aft_ray.datasets import Listing, list_samples
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(path.name), 0, 0)).save(path, "PNG")


def listing(source: str, path: Path, **keys: object) -> Listing:
    columns = {} if source in ("image_folder", "webdataset") else {"columns": {"text": "text"}}
    return list_samples(DatasetConfig.model_validate({"source": source, "path": str(path), **columns, **keys}))


PAIRS = [
    ("train_set", "test_set"),
    ("train1", "test1"),
    ("train", "Holdout"),
    ("trainset", "held_out"),
    ("TrainingData", "eval data"),
    ("pets_train", "pets_test"),
    ("train2017", "val2017"),
    ("train_val", "test"),
]


@pytest.mark.parametrize(("train", "other"), PAIRS)
def test_folders_that_look_like_splits_are_refused_with_the_key_to_read_them(
    train: str, other: str, tmp_path: Path
) -> None:
    draw(*(tmp_path / folder / name / "1.png" for folder in (train, other) for name in ("cat", "dog")))
    with pytest.raises(InputError, match="look like splits|looks like a split") as refused:
        listing("image_folder", tmp_path)
    assert f"train: [{train}]" in str(refused.value) and other in str(refused.value)
    named = {"train": [train], "test": [other]}
    assert {item.split for item in listing("image_folder", tmp_path, splits=named).items} == {"train", "test"}


def test_a_train_folder_with_classes_beside_another_of_the_same_classes_is_refused(tmp_path: Path) -> None:
    draw(*(tmp_path / folder / name / "1.png" for folder in ("training_data", "unseen") for name in ("cat", "dog")))
    with pytest.raises(InputError, match="training_data looks like a split, but unseen is no split"):
        listing("image_folder", tmp_path)


def test_a_single_train_folder_is_told_as_the_place_to_name(tmp_path: Path) -> None:
    draw(*(tmp_path / "training_data" / name / "1.png" for name in ("cat", "dog")))
    with pytest.raises(InputError, match="set dataset.path to .*/training_data"):
        listing("image_folder", tmp_path)


@pytest.mark.parametrize(
    "names", [("steam_train", "bus"), ("test_tube", "beaker"), ("train", "bus"), ("contest", "protest"), ("dev", "ops")]
)
def test_classes_with_such_words_stay_classes(names: tuple[str, str], tmp_path: Path) -> None:
    draw(*(tmp_path / name / "1.png" for name in names))
    assert listing("image_folder", tmp_path).classes == tuple(sorted(names))


def test_a_longer_name_counts_where_another_differs_by_the_split_alone() -> None:
    from aft_ray.datasets.sources.splits import look_alikes

    assert look_alikes(["steam_train", "steam_test"]) == {"steam_train": "train", "steam_test": "test"}
    assert look_alikes(["steam_train", "diesel_test", "bus"]) == {}


@pytest.mark.parametrize("names", [("trainset.csv", "testset.csv"), ("TrainData/a.csv", "HoldOut/a.csv")])
def test_tables_that_look_like_splits_are_not_read_as_one_pool(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text,label\n" + "".join(f"{name} {n},{n % 2}\n" for n in range(8)))
    with pytest.raises(InputError, match="look like splits, but do not have the names of splits"):
        listing("csv", tmp_path)
    train, test = (Path(name).parts[0].partition(".")[0] for name in names)
    found = listing("csv", tmp_path, splits={"train": train, "test": test})
    assert {item.split for item in found.items} == {"train", "test"}


def test_a_column_of_splits_decides_whatever_the_files_are_called(tmp_path: Path) -> None:
    for name in ("trainset", "testset"):
        (tmp_path / f"{name}.csv").write_text("text,label,split\na,0,train\nb,1,train\nc,0,test\n")
    assert len(listing("csv", tmp_path, columns={"text": "text", "split": "split"}).items) == 6


def tar(path: Path, count: int, *more: str) -> None:
    with tarfile.open(path, "w") as opened:
        members = [
            (f"{n}.{kind}", text) for n in range(count) for kind, text in (("txt", f"t {n}"), ("cls", str(n % 2)))
        ]
        for name, content in [*members, *((name, "x") for name in more)]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content.encode()))


def test_tars_are_split_as_tables_are(tmp_path: Path) -> None:
    tar(tmp_path / "trainset.tar", 4)
    tar(tmp_path / "testset.tar", 4)
    with pytest.raises(InputError, match="look like splits, but do not have the names of splits"):
        listing("webdataset", tmp_path)
    (tmp_path / "trainset.tar").rename(tmp_path / "train.tar")
    (tmp_path / "testset.tar").rename(tmp_path / "more.tar")
    with pytest.raises(InputError, match="more.tar in .* name no split, other files do"):
        listing("webdataset", tmp_path)


def test_tables_of_a_hub_copy_are_split_as_others_are(tmp_path: Path) -> None:
    for name in ("trainset", "testset"):
        pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match="look like splits, but do not have the names of splits"):
        listing("hub", tmp_path, repo="me/own")


def test_every_source_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("train", "test", "extra"):
        (tmp_path / "tables" / f"{name}.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "tables" / "notes.md").write_text("x")
    (tmp_path / "tables" / ".hidden.csv").write_text("x")
    splits = {"train": "train", "test": "test"}
    others = "of splits that dataset.splits does not name"
    assert listing("csv", tmp_path / "tables", splits=splits).left_out == {"hidden": 1, ".md": 1, others: 1}

    rows = "".join(f"t {n},{n % 2},{('train', 'test', 'odd')[n % 3]}\n" for n in range(12))
    (tmp_path / "rows.csv").write_text("text,label,split\n" + rows)
    found = listing("csv", tmp_path / "rows.csv", columns={"text": "text", "split": "split"}, splits=splits)
    assert found.left_out == {f"rows {others}": 4}

    (tmp_path / "tars").mkdir()
    tar(tmp_path / "tars" / "a.tar", 4, "1.xyz", "__MACOSX/1.txt")
    (tmp_path / "tars" / "index.json").write_text("{}")
    assert listing("webdataset", tmp_path / "tars").left_out == {".json": 1, "members .xyz": 1, "hidden members": 1}

    (tmp_path / "hub").mkdir()
    for name in ("train", "test", "unsupervised"):
        pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), tmp_path / "hub" / f"{name}.parquet")
    (tmp_path / "hub" / "README.md").write_text("x")
    assert listing("hub", tmp_path / "hub", repo="me/own").left_out == {".md": 1, "tables of other splits": 1}

    draw(*(tmp_path / "folders" / split / name / "1.png" for split in ("a", "b") for name in ("cat", "dog")))
    assert listing("image_folder", tmp_path / "folders", splits={"train": "a"}).left_out == {others: 2}


@pytest.mark.parametrize("keys", [{"source": "image_folder"}, {"source": "torchvision", "dataset_class": "CIFAR10"}])
def test_a_file_where_a_folder_is_needed_is_told_as_a_file(keys: dict, tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="data.zip is a file, not a folder; unpack it"):
        list_samples(DatasetConfig(**keys, path=str(tmp_path / "data.zip")))


def test_a_folder_around_the_folders_of_classes_is_named_as_the_place_to_set(tmp_path: Path) -> None:
    draw(*(tmp_path / "images" / name / "1.png" for name in ("cat", "dog")))
    with pytest.raises(InputError, match="found 1. If its folders are the classes, set dataset.path to .*/images."):
        listing("image_folder", tmp_path)
