"""What `prepare` says of data that may surprise, a line each; and nothing where all is well."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe

RANDOM = np.random.default_rng(0)


def picture(path: Path, pixels: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), np.uint8) if pixels is None else pixels).save(path)


def folders(root: Path, count: int = 300, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for number in range(count):
        picture(root / classes[number % len(classes)] / f"{number}.png")
    return root


def table(path: Path, rows: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"text,label\n{rows}")


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], **dataset: Any) -> list[str]:
    content = {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    prepare(Recipe.model_validate(content))
    lines = capsys.readouterr().err.splitlines()
    return [line.partition("data check: ")[2] for line in lines if "data check: " in line]


def of_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], **dataset: Any) -> list[str]:
    fractions = {"validation_fraction": 0.4, "test_fraction": 0.2}
    path = str(tmp_path / "data")
    return told(tmp_path, capsys, **{"source": "image_folder", "path": path, **fractions, **dataset})


def test_good_data_is_not_talked_about_nor_is_any_a_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data")
    assert of_folder(tmp_path, capsys) == []
    picture(tmp_path / "data" / "cat" / "one.png", np.zeros((8, 8, 3), np.uint8))
    assert len(of_folder(tmp_path / "other", capsys, path=str(tmp_path / "data"))) == 1
    assert of_folder(tmp_path / "other", capsys, path=str(tmp_path / "data")) == []


def test_transparent_and_one_coloured_pictures_are_counted_as_the_student_sees_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data")
    for number in range(7):
        clear = np.full((8, 8, 4), 255, np.uint8)
        clear[..., :3], clear[2:5, 2:5, 3] = RANDOM.integers(0, 256, 3), 0
        clear[..., :3] = 255 if number == 0 else clear[..., :3]  # white on white
        picture(tmp_path / "data" / "cat" / f"clear{number}.png", clear)
        whole = np.concatenate([RANDOM.integers(0, 256, (8, 8, 3)), np.full((8, 8, 1), 255)], 2).astype(np.uint8)
        picture(tmp_path / "data" / "dog" / f"whole{number}.png", whole)
    clear_line, flat_line = of_folder(tmp_path, capsys)
    assert clear_line.startswith("Pictures with transparent parts: 7 of 314 that were looked at, such as cat/clear")
    assert flat_line.startswith("Pictures of one colour: 1 of 314 that were looked at, such as cat/clear0.png")


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_pictures_that_are_cut_off_are_told_before_the_teachers_meet_them(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data")
    picture(tmp_path / "data" / "cat" / f"half.{kind}", RANDOM.integers(0, 256, (64, 64, 3), np.uint8))
    half = tmp_path / "data" / "cat" / f"half.{kind}"
    half.write_bytes(half.read_bytes()[:900])
    (line,) = of_folder(tmp_path, capsys)
    assert line.startswith(
        f"Pictures that cannot be decoded: 1 of 301 that were looked at, such as cat/half.{kind}. Mend"
    )


def test_copies_across_splits_are_counted_and_within_one_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("train", 200), ("val", 120), ("test", 20)):
        folders(tmp_path / "data" / split, count)
    first = (tmp_path / "data" / "train" / "cat" / "0.png").read_bytes()
    for place in ("train/dog/1.png", "val/cat/0.png", "test/cat/0.png"):
        (tmp_path / "data" / place).write_bytes(first)
    (line,) = of_folder(tmp_path, capsys)
    assert line.startswith("Exact copies of samples in another split: 2, such as val/cat/0.png (validation) of")
    assert "dataset.columns.group" in line


def test_copies_of_texts_are_found_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("train", 30), ("validation", 200), ("test", 30)):
        rows = "".join(f"{'same' if n == 5 else f'{name} {n}'},{n % 2}\n" for n in range(count))
        table(tmp_path / "tables" / f"{name}.csv", rows)
    (line,) = told(tmp_path, capsys, source="csv", path=str(tmp_path / "tables"), columns={"text": "text"})
    assert line.startswith("Exact copies of samples in another split: 2,")


def test_small_classes_and_a_small_validation_split_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data", 100)
    folders(tmp_path / "data", 8, ("bird",))
    few, small = of_folder(tmp_path, capsys, validation_fraction=0.1)
    assert few.startswith("Classes with fewer than 5 samples in a split: bird (") and "dataset.stratify" in few
    shutil.rmtree(tmp_path / "work")
    few, _ = of_folder(tmp_path, capsys, validation_fraction=0.1, stratify=True)
    assert few.endswith("(1 in validation), bird (2 in test).")
    assert "labelled samples, too few to choose by: the standard error of an accuracy of 50 % is" in small


def test_labels_that_differ_only_in_case_or_blanks_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["Sea lion", "sea  lion", "cat", "Cat", "dog"]
    rows = "".join(f"text {n},{names[n % 5]}\n" for n in range(900))
    table(tmp_path / "tables" / "a.csv", rows)
    (line,) = told(
        tmp_path, capsys, source="csv", path=str(tmp_path / "tables"), columns={"text": "text"}, validation_fraction=0.3
    )
    assert line == (
        "Classes that differ only in case or blanks: 'Cat' and 'cat'; 'Sea lion' and 'sea  lion'. Are they one class?"
    )


def test_a_brought_split_without_labels_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, label in (("train", "{}"), ("validation", "{}"), ("test", "-1")):
        rows = "".join(f"{name} {n},{label.format(n % 2)}\n" for n in range(220))
        table(tmp_path / "tables" / f"{name}.csv", rows)
    (line,) = told(tmp_path, capsys, source="csv", path=str(tmp_path / "tables"), columns={"text": "text"})
    assert line == "No sample of test has a label: there is nothing to score there."


def test_folders_that_all_have_the_same_folders_inside_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("learn", "check"):
        folders(tmp_path / "data" / name, 200)
    (line,) = of_folder(tmp_path, capsys)
    assert line.startswith(
        "The classes are check, learn, each with the folders cat, dog inside. If these are the classes"
    )


@pytest.mark.parametrize(("scale", "is_told"), [(1, False), (1000, True)])
def test_numbers_far_from_a_student_s_start_are_told(
    scale: int, is_told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("train", 40), ("validation", 120), ("test", 30)):
        table(tmp_path / "tables" / f"{name}.csv", "".join(f"{name} {n},{scale * (n % 4)}\n" for n in range(count)))
    lines = told(
        tmp_path, capsys, source="csv", path=str(tmp_path / "tables"), columns={"text": "text"}, task="regression"
    )
    assert any("have mean 1.5e+03 and standard deviation 1.12e+03" in line for line in lines) == is_told == bool(lines)
