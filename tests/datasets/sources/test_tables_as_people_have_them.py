"""Tables as people have them: quotes, spellings of labels, names of splits. Nothing is dropped or glued in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aft_ray.datasets import Listing, list_samples
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig


def table(path: Path, source: str = "csv", **keys: Any) -> Listing:
    columns = {"text": "text", "label": "label"}
    return list_samples(DatasetConfig.model_validate(dict(source=source, path=str(path), columns=columns, **keys)))


def texts(listing: Listing) -> list[Any]:
    return [listing.read(index) for index in range(len(listing.items))]


def write(path: Path, rows: list[tuple[str, str]], tab: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{tab.join(row)}\n" for row in [("text", "label"), *rows]))
    return path


def test_a_tsv_keeps_every_row_and_every_quote(tmp_path: Path) -> None:
    rows = [('"Great" he said', "a"), ('"unclosed', "b"), ('5" screen', "a"), ("plain", "b"), ('"both"', "a")]
    assert texts(table(write(tmp_path / "t.tsv", rows, "\t"))) == [text for text, _ in rows]


@pytest.mark.parametrize("field", ['"never closed', '"closed" and more', '""" odd'])
def test_a_csv_with_broken_quotes_is_refused_with_its_row(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "t.csv", [("good", "a"), ('"quoted, well"', "b"), (field, "a"), ("later", "b")])
    with pytest.raises(InputError, match="t.csv, row 3: .*quote"):
        table(path)


def test_a_csv_may_have_commas_quotes_and_line_breaks_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [('"a, ""b""\nc"', "x"), ("it's", "y")])
    assert texts(table(path)) == ['a, "b"\nc', "it's"]


@pytest.mark.parametrize("header", ["text;label", '"text";"label"'])
@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_csv_of_a_spreadsheet_may_have_semicolons(tmp_path: Path, header: str, mark: str) -> None:
    """As they write where a comma is the decimal point: with the mark of UTF-8 and the line ends of Windows."""
    path = tmp_path / "Sprüche 1.csv"
    content = f'\ufeff{header}\r\n"a; ""b"", c";x\r\n1,5;y\r\n'.replace(";", mark)
    path.write_bytes(content.encode())
    listing = table(path)
    assert texts(listing) == [f'a{mark} "b", c', "1,5"] and listing.classes == ("x", "y")


def test_a_csv_with_a_comma_in_its_header_keeps_its_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label,a;b\nx;y,1,z\nw,2,v\n")
    assert texts(table(path)) == ["x;y", "w"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["0", "1", "0.0", "1.0"], ("0", "1")),
        (["+1", "1", "2.", "02.0"], ("1", "2")),
        (["--1", "1x", "--1", "1x"], ("--1", "1x")),
        (["a", " a", "a ", "b"], ("a", "b")),
        (["7", "007", "7", "8"], None),
        (["1e0", "2e0", "1.000e+00", "2"], ("1", "2")),
        (["１", "2", "1", "２"], ("1", "2")),
        (["٣", "4", "3", "٤"], ("3", "4")),
        (["001", "010", "001", "010"], ("001", "010")),
        (["−1", "0", "1", "-1.0"], ("0", "1")),
        (["1.0", "1.1", "2.0", "1.0"], ("1.0", "1.1", "2.0")),
        (["1e5", "2f3", "3a1", "1e5"], ("1e5", "2f3", "3a1")),
        (["1", "1.0", "dog", "cat"], None),
        (["1_0", "10", "1_0", "10"], ("10", "1_0")),
        (["9" * 19, "7", "9" * 19, "7"], ("7", "9" * 19)),
        (["-1", "0", "1", "0"], ("0", "1")),
    ],
)
def test_labels_are_one_class_however_they_are_spelled(
    tmp_path: Path, labels: list[str], classes: tuple[str, ...] | None
) -> None:
    path = write(tmp_path / "t.csv", [(f"text {number}", label) for number, label in enumerate(labels)])
    if classes is None:
        with pytest.raises(InputError, match="are the same number. Spell them alike"):
            table(path)
    else:
        assert table(path).classes == classes


def test_decimals_in_one_file_and_none_in_another_are_the_same_classes_and_may_be_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [("a", "0.0"), ("b", "1.0")])
    write(tmp_path / "test.csv", [("c", "0"), ("d", "1")])
    assert table(tmp_path).classes == ("0", "1")
    named = table(tmp_path, label_names=("neg", "pos"))
    assert named.classes == ("neg", "pos") and sorted(str(item.label) for item in named.items) == [*"0011"]


def test_a_blank_label_is_no_label(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [("a", "x"), ("b", "  "), ("c", "y"), ("d", "\t")])
    listing = table(path)
    assert listing.classes == ("x", "y") and [item.label for item in listing.items] == [0, -1, 1, -1]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train.csv", "Test.csv"),
        ("TRAIN.csv", "TEST.csv"),
        ("split=train/part.csv", "split=test/part.csv"),
        ("Training/a.csv", "Testing/a.csv"),
        ("reviews_train.csv", "reviews_test.csv"),
        ("reviews.train.csv", "reviews.test.csv"),
        ("reviews-Train-00000-of-00001.csv", "reviews-Test-00000-of-00001.csv"),
    ],
)
def test_names_of_splits_are_known_whatever_their_capitals_and_neighbours(
    tmp_path: Path, train: str, test: str
) -> None:
    write(tmp_path / train, [("a", "x"), ("b", "y")])
    write(tmp_path / test, [("c", "x")])
    assert sorted(str(item.split) for item in table(tmp_path).items) == ["test", "train", "train"]


def test_a_column_of_splits_is_read_whatever_its_capitals(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,part\na,x,Train\nb,y,TEST\nc,y,train\n")
    columns = {"text": "text", "label": "label", "split": "part"}
    listing = list_samples(
        DatasetConfig.model_validate(dict(source="csv", path=str(tmp_path / "t.csv"), columns=columns))
    )
    assert [item.split for item in listing.items] == ["train", "test", "train"]
