"""Folders name the splits and the classes of pictures."""

from __future__ import annotations

from pathlib import Path

from aft_ray import datasets
from aft_ray.datasets import list_samples
from aft_ray.datasets.held_out import choose_splits
from tests.helpers.hub_data import png
from tests.helpers.tables import dataset


def test_a_folder_per_split(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 4), ("test", 6)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index}.png").write_bytes(png(index))
    config = dataset(source="image_folder", path=str(tmp_path / "pictures"))
    listing = list_samples(config)
    assert listing.classes == ("cat", "dog") and "train/cat/0.png" in {item.sample_id for item in listing.items}
    found = {split: len(indices) for split, indices in choose_splits(listing, config).items()}
    assert found == {"train": 40, "validation": 8, "test": 12}
    (tmp_path / "pictures" / "test" / "dog").rename(tmp_path / "pictures" / "test" / "Dog")
    lines = datasets.faults(config)
    assert any("split test has no class dog, another split has" in line for line in lines)
    assert any("split train has no class Dog" in line for line in lines)


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    for name in ("train", "bus"):
        (tmp_path / name / "old").mkdir(parents=True)
        (tmp_path / name / "old" / "1.png").write_bytes(png(1))
    assert list_samples(dataset(source="image_folder", path=str(tmp_path))).classes == ("bus", "train")
