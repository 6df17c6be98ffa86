"""The conversions that docs/guide.md shows do what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from aft_ray.datasets import list_samples
from aft_ray.recipe.sections import DatasetConfig

GUIDE = (Path(__file__).parents[3] / "docs" / "guide.md").read_text()
SECTION = GUIDE.partition("## Data as it lies")[2].partition("\n## ")[0]
CAPTIONS, TEXTS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


def pictures_with_captions(folder: Path) -> None:
    for number in range(6):
        place = folder / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(f"caption {number}\n")


def listed(**keys: Any) -> Any:
    return list_samples(DatasetConfig.model_validate(keys))


def test_captions_beside_pictures_become_a_tar_with_one_command(tmp_path: Path) -> None:
    pictures_with_captions(tmp_path / "pictures")
    (command,) = re.findall(r"`(tar .*?)`", SECTION)
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    listing = listed(source="webdataset", path=str(tmp_path / "pairs.tar"), columns={"label": []})
    assert listing.modality == "image+text" and len(listing.items) == 6
    assert {listing.read(index)[1].strip() for index in range(6)} == {f"caption {number}" for number in range(6)}


def test_captions_in_folders_of_classes_become_a_table(tmp_path: Path) -> None:
    pictures_with_captions(tmp_path / "pictures")
    subprocess.run([sys.executable, "-c", CAPTIONS], cwd=tmp_path, check=True)
    columns = {"image": "image", "text": "text"}
    listing = listed(source="jsonl", path=str(tmp_path / "pictures"), columns=columns)
    assert listing.classes == ("cat", "dog") and len(listing.items) == 6
    assert all(picture.startswith(b"\x89PNG") for picture, _ in map(listing.read, range(6)))


def test_a_file_of_texts_per_class_becomes_a_table(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("good", "poor"):
        (tmp_path / "texts" / f"{name}.txt").write_text(f"a {name}, long film\nanother {name} one\n")
    subprocess.run([sys.executable, "-c", TEXTS], cwd=tmp_path, check=True)
    listing = listed(source="jsonl", path=str(tmp_path / "texts.jsonl"), columns={"text": "text"})
    assert listing.classes == ("good", "poor") and len(listing.items) == 4
