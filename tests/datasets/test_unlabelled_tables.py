"""`predict` reads a table as `prepare` does, and makes the same text of its rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.datasets import list_samples, row_form
from aft_ray.datasets.unlabelled import list_unseen
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig

ROWS = [
    {"nr": "00007", "title": "1e5", "body": 'quoted, "twice"', "label": "a"},
    {"nr": "2", "title": " blanks ", "body": "two\nlines", "label": "b"},
    {"nr": "03", "title": "NA", "body": "a\u2028b", "label": "a"},
]


def write(place: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    path = place / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif suffix == ".tsv":  # has no quotes
        lines = ["\t".join(rows[0]), *("\t".join(value.replace("\n", " ") for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        quoted = (",".join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in rows)
        path.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n")
    return path


def config(path: Path, **given: Any) -> DatasetConfig:
    source = {".tsv": "csv"}.get(path.suffix, path.suffix[1:])
    return DatasetConfig.model_validate({"source": source, "path": str(path), **given})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "given",
    [
        {"columns": {"text": "body", "id": "nr"}},
        {"columns": {"text": ["title", "body"], "id": "nr"}},
        {"columns": {"text": "body", "id": "nr"}, "prompt": "Is this good? {body} Answer:"},
        {"columns": {"text": ["title", "body"], "id": "nr"}, "prompt": "{body} ({title})"},
    ],
)
def test_a_row_is_the_sample_that_prepare_makes_of_it(suffix: str, given: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path, suffix, ROWS)
    made = config(path, **given)
    listing = list_samples(made)
    found = list_unseen(str(path), ["text"], row_form(made)).table
    assert found["text"].to_pylist() == [listing.read(number) for number in range(len(ROWS))]
    assert found["id"].to_pylist() == [item.sample_id for item in listing.items] == ["00007", "2", "03"]


def test_a_named_task_has_a_prompt_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", [{"premise": "It rains.", "hypothesis": "It is wet."}])
    for prompt in (None, "reference", "{premise} so {hypothesis}"):
        made = DatasetConfig(name="mnli", prompt=prompt)
        (text,) = list_unseen(str(path), ["text"], row_form(made)).table["text"].to_pylist()
        assert "It rains." in text and "It is wet." in text
        assert (text == "It rains. so It is wet.") == (prompt is not None and prompt != "reference")


def test_the_bare_text_is_not_taken_for_the_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", [{"text": "great film"}])
    form = row_form(config(path, columns={"text": "review"}, prompt="Is this good? {review} Answer:"))
    with pytest.raises(InputError, match="rows.csv has no column 'review', which the run reads. Its columns: text."):
        list_unseen(str(path), ["text"], form)


def test_a_line_fills_a_prompt_with_one_place_and_ends_where_a_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\u2028more\r\ntwo\r\rthree".encode() + b"\n")
    form = row_form(config(tmp_path / "x.csv", columns={"text": "review"}, prompt="Good? {review}"))
    found = list_unseen(str(path), ["text"], form).table
    assert found["text"].to_pylist() == ["Good? one\u2028more", "Good? two", None, "Good? three"]
    assert found["fault"].to_pylist() == [None, None, "its text is empty", None]
    pair = row_form(config(tmp_path / "x.csv", columns={"text": ["a", "b"]}))
    with pytest.raises(InputError, match="one text on a line; the run's samples were made of a and b. Give a table"):
        list_unseen(str(path), ["text"], pair)


def test_pictures_of_a_table_are_bytes_or_paths_inside_its_folder(tmp_path: Path) -> None:
    form = row_form(config(tmp_path / "x.parquet", columns={"image": "file"}))
    paths = ["1.png", "../secret.png", "/etc/passwd", "", None, "deep/2.png"]
    path = write(tmp_path, ".parquet", [{"file": name} for name in paths])
    found = list_unseen(str(path), ["image"], form).table
    assert found["image"].to_pylist() == ["1.png", None, None, None, None, "deep/2.png"]
    faults = found["fault"].to_pylist()
    assert (
        "leads outside" in faults[1] and "leads outside" in faults[2] and faults[3] == faults[4] == "it has no picture"
    )
    pairs: list[dict[str, Any]] = [
        {"file": {"bytes": b"a picture", "path": "x.png"}},
        {"file": {"bytes": None, "path": None}},
    ]
    found = list_unseen(str(write(tmp_path, ".parquet", pairs)), ["image"], form).table
    assert found["image"].to_pylist() == [b"a picture", None]
    pictures = tmp_path / "pictures"
    found = list_unseen(str(path), ["image"], form, image_root=str(pictures))
    assert found.root == str(pictures)


ODD: list[tuple[str, bytes, str]] = [
    ("empty.csv", b"", "empty.csv has no column 'text', which the run reads. Its columns: none."),
    ("empty.jsonl", b"", "empty.jsonl has no column 'text'"),
    ("empty.parquet", b"", "empty.parquet cannot be read as parquet: "),
    ("head.csv", b"text\n", "head.csv holds nothing to predict."),
    ("cut.parquet", b"PAR1\x15\x04", "cut.parquet cannot be read as parquet: "),
    ("utf16.csv", "text\na\n".encode("utf-16-le"), "utf16.csv cannot be read as csv: it has NUL characters, as UTF-16"),
    ("latin.csv", "text\nnuméro\n".encode("latin-1"), "byte 0xe9 is no UTF-8 text. Save it as UTF-8."),
    (
        "latin.txt",
        "film\nnuméro\n".encode("latin-1"),
        "latin.txt, line 2: byte 0xe9 is no UTF-8 text. Save it as UTF-8.",
    ),
    ("utf16.txt", "film\n".encode("utf-16-le"), "utf16.txt: it has NUL characters, as UTF-16 without a mark has."),
    ("cut.txt", "film\n".encode("utf-16")[:-1], "is no UTF-16"),
    ("late.csv", b"text\ngood\n\xff\n", "cannot be read as csv: "),
    ("list.jsonl", b"[1]\n", "list.jsonl, row 1: a list, not a JSON object."),
    ("more.csv", b"text\na,b\n", "more.csv, row 1: 2 values, the header has 1."),
    ("quote.csv", b'text\n"a', "quote.csv"),
    ("twice.csv", b"text,text\na,b\n", "column text is there twice"),
    ("half.jsonl", b'{"text": "a", "id": "\\ud800"}\n', "is no text: it holds half a surrogate pair"),
    ("ids.jsonl", b'{"text": "a", "id": [1]}\n', "ids.jsonl, row 1: id [1] is no text and no whole number."),
    ("a.png", b"no picture", "a.png must be a file of one of the kinds .txt, "),
]


@pytest.mark.parametrize("number", range(len(ODD)))
def test_odd_tables_are_a_line(number: int, tmp_path: Path) -> None:
    name, content, fault = ODD[number]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        list_unseen(str(tmp_path / name), ["text"])
    assert fault in str(raised.value) and len(raised.value.faults) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.txt"])
def test_a_text_file_is_read_in_the_encoding_that_its_mark_names(name: str, encoding: str, tmp_path: Path) -> None:
    texts = ["numéro un", "映画\u2028は", "третий"]
    lines = [json.dumps({"text": text}) for text in texts] if "jsonl" in name else ["text", *texts]
    content = "\n".join(lines[1:] if name == "a.txt" else lines).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = list_unseen(str(tmp_path / name), ["text"]).table
    assert found["text"].to_pylist() == texts and found["fault"].null_count == 3


def test_an_image_root_that_is_not_there_is_told_where_paths_start_from_it(tmp_path: Path) -> None:
    form = row_form(config(tmp_path / "x.csv", columns={"image": "file"}))
    path = write(tmp_path, ".csv", [{"file": "1.png"}])
    with pytest.raises(InputError, match="dataset.columns.image_root: there is no folder .*/nowhere"):
        list_unseen(str(path), ["image"], form, image_root=str(tmp_path / "nowhere"))


def test_a_row_that_is_no_text_is_a_fault_of_the_row_alone(tmp_path: Path) -> None:
    rows: list[Any] = ["good", 5, None, ["a"], {"b": 1}, " ", True]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": value}) + "\n" for value in rows))
    with (tmp_path / "x.jsonl").open("a") as file:
        file.write('{"text": "\\ud800"}\n')
    found = list_unseen(str(tmp_path / "x.jsonl"), ["text"]).table
    assert found["text"].to_pylist() == ["good", *[None] * 7] and found["fault"].null_count == 1


def test_pictures_in_a_folder_are_those_that_prepare_finds(tmp_path: Path) -> None:
    for name in ("a.jfif", ".hidden.png", "__MACOSX/b.png", "deep/c.PNG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = list_unseen(str(tmp_path), ["image"])
    assert found.table["id"].to_pylist() == ["a.jfif", "deep/c.PNG"]
    assert found.left_out == {"hidden": 2, ".txt": 1}
    with pytest.raises(InputError, match="notes.txt must be a picture, a folder of them or a table"):
        list_unseen(str(tmp_path / "notes.txt"), ["image"])
    (tmp_path / "name\udcff.png").write_bytes(b"x")
    with pytest.raises(InputError, match="is no text. Rename the file."):
        list_unseen(str(tmp_path), ["image"])
