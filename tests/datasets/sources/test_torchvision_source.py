"""The classes of torchvision are read with their own splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray import datasets
from aft_ray.datasets import list_samples
from aft_ray.datasets.held_out import choose_splits
from aft_ray.recipe.errors import InputError
from tests.helpers.hub_data import png
from tests.helpers.tables import dataset


def test_torchvision_classes(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "fgvc-aircraft-2013b" / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("A380\nDC-3\n")
    for split, numbers in (
        ("train", range(20)),
        ("val", range(20, 26)),
        ("trainval", range(26)),
        ("test", range(26, 32)),
    ):
        lines = [f"{number:07d} {('A380', 'DC-3')[number % 2]}" for number in numbers]
        (folder / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")
    for number in range(32):
        (folder / "images" / f"{number:07d}.jpg").write_bytes(png(number))
    root = str(tmp_path / "root")
    usual = dataset(source="torchvision", dataset_class="FGVCAircraft", path=root)
    listing = list_samples(usual)
    assert listing.classes == ("A380", "DC-3") and listing.read(3) == png(3)
    assert {s: len(i) for s, i in choose_splits(listing, usual).items()} == {"train": 20, "validation": 6, "test": 6}
    paper = usual.model_copy(update={"splits": {"train": ("trainval",), "test": ("test",)}})
    assert sum(item.split == "train" for item in list_samples(paper).items) == 26
    (line,) = datasets.faults(dataset(source="torchvision", dataset_class="Aircraft", path=root))
    assert "torchvision.datasets has no class 'Aircraft'" in line
    with pytest.raises(InputError, match=r"CIFAR10 is not in .*torchvision.datasets.CIFAR10\(.*download=True\)"):
        list_samples(dataset(source="torchvision", dataset_class="CIFAR10", path=root))
