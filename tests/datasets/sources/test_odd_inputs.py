"""Files as no one wants them, of every source: each is read whole or refused with its name, never half read."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray import datasets
from aft_ray.datasets import Listing, list_samples
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from tests.helpers.hub_data import png

ROWS = "".join(f"text {number},{number % 2}\n" for number in range(40))
CSV = f"text,label\n{ROWS}"
JSONL = "".join(json.dumps({"text": f"text {number}", "label": number % 2}) + "\n" for number in range(40))
COLUMNS = {"text": "text", "label": "label"}


def config(source: str, path: Path, **keys: Any) -> DatasetConfig:
    more = {} if source in ("image_folder", "webdataset") else {"columns": COLUMNS}
    return DatasetConfig.model_validate({"source": source, "path": str(path), **more, **keys})


def listed(source: str, path: Path, **keys: Any) -> Listing:
    return list_samples(config(source, path, **keys))


def refused(source: str, path: Path, **keys: Any) -> str:
    with pytest.raises(InputError) as error:
        listed(source, path, **keys)
    return "\n".join(error.value.faults)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("crlf.csv", CSV.replace("\n", "\r\n").encode()),
        ("cr.csv", CSV.replace("\n", "\r").encode()),
        ("blank-lines.csv", f"\n\n{CSV}\n\n".encode()),
        ("unnamed-columns.csv", CSV.replace("\n", ",,\n").encode()),
        ("CAPS.CSV.GZ", gzip.compress(CSV.encode())),
        ("a.tsv.csv", CSV.encode()),
        ("wide.csv", CSV.encode("utf-16")),
        ("wider.csv", CSV.encode("utf-32")),
        ("TABS.TSV", CSV.replace(",", "\t").encode()),
    ],
)
def test_text_tables_in_other_clothes_are_read_whole(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    listing = listed("csv", tmp_path)
    assert len(listing.items) == 40 and listing.classes == ("0", "1") and listing.read(39) == "text 39"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"", "no column"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"text,label,text\na,1,b\n", "column text is there twice"),
        ("a.csv", CSV.encode() + b"\xe4,1\n", "cannot be read.*byte 0xe4 is no UTF-8 text. Save it as UTF-8."),
        ("a.csv", CSV.encode("utf-16-le"), "cannot be read.*NUL characters, as UTF-16 without a mark"),
        ("a.csv", CSV.encode() + b"short\n", "row 41: 1 values, the header has 2"),
        ("a.csv.gz", gzip.compress(CSV.encode())[:-20], "cannot be read"),
        ("a.csv.gz", gzip.compress(CSV.encode())[:60] + b"\0" * 100, "cannot be read"),
        ("a.csv.gz", CSV.encode(), "cannot be read"),
        ("a.jsonl", JSONL.encode() + b'{"text": "a", "text": "b", "label": 1}\n', "row 41: .*'text' is there twice"),
        ("a.jsonl", JSONL.encode() + b'{"text": ' + b"[" * 100_000 + b"\n", "row 41: .*nested too deeply"),
        ("a.jsonl", JSONL.encode() + b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n", "row 41"),
        ("a.jsonl", JSONL.encode() + b'{"text": "a", "label": "\\ud800"}\n', "row 41: .*not Unicode"),
        ("a.jsonl", b"[]\n", "row 1: a list, not a JSON object"),
        ("a.parquet", b"", "cannot be read"),
        ("a.parquet", b"PAR1" + b"x" * 99 + b"PAR1", "cannot be read"),
    ],
)
def test_damaged_tables_are_refused_by_name(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    fault = refused(name.split(".")[1], tmp_path)
    assert name in fault
    with pytest.raises(InputError, match=told):
        listed(name.split(".")[1], tmp_path)


TEXTS, LABELS = [f"text {number}" for number in range(40)], [number % 2 for number in range(40)]


def typed(text: Any = TEXTS, label: Any = LABELS) -> pa.Table:
    return pa.Table.from_arrays([pa.array(text), pa.array(label)], ["text", "label"])


@pytest.mark.parametrize(
    "table",
    [
        typed(pa.array(TEXTS, pa.large_string()), pa.array(LABELS, pa.decimal128(5, 2))),
        typed(pa.array(TEXTS).dictionary_encode(), pa.array(map(str, LABELS)).dictionary_encode()),
        typed(pa.array(TEXTS, pa.string_view()), pa.array(LABELS, pa.float32())),
        typed(label=pa.array(LABELS, pa.uint64())),
        typed(label=pa.array(map(bool, LABELS))),
    ],
)
def test_columns_of_every_type_that_can_be_a_text_and_a_class(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    listing = listed("parquet", tmp_path)
    assert (listing.classes, listing.read(3)) == (("0", "1"), "text 3")
    assert [item.label for item in listing.items] == LABELS


def test_labels_of_numbers_need_not_start_at_0(tmp_path: Path) -> None:
    pq.write_table(typed(label=pa.array([5 + label for label in LABELS])), tmp_path / "a.parquet")
    listing = listed("parquet", tmp_path)
    assert listing.classes == ("5", "6") and [item.label for item in listing.items] == LABELS


@pytest.mark.parametrize(
    "note", ["{not json", '{"info": []}', '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 5}}}}']
)
def test_damaged_names_of_classes_in_a_schema_are_refused(tmp_path: Path, note: str) -> None:
    pq.write_table(typed().replace_schema_metadata({"huggingface": note}), tmp_path / "a.parquet")
    assert "a.parquet: Its schema has names of classes that cannot be read" in refused("parquet", tmp_path)


def test_classes_that_are_called_by_numbers_keep_their_places(tmp_path: Path) -> None:
    feature = {"_type": "ClassLabel", "names": ["1", "2"]}
    note = json.dumps({"info": {"features": {"label": feature}}})
    pq.write_table(typed().replace_schema_metadata({"huggingface": note}), tmp_path / "a.parquet")
    assert [item.label for item in listed("parquet", tmp_path).items] == LABELS


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], ["text", "label", "label"]),
        tmp_path / "a.parquet",
    )
    assert "column label is there twice" in refused("parquet", tmp_path)


def test_a_damaged_page_is_told_once_and_not_of_every_sample(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(typed(TEXTS * 50, LABELS * 50), file, compression="zstd")
    content = bytearray(file.read_bytes())
    content[200:260] = bytes(60)
    file.write_bytes(content)
    recipe = {"workspace": str(tmp_path / "work"), "student": {"model": "tiny:cnn"}}
    with pytest.raises(InputError) as error:
        prepare(
            Recipe.model_validate(
                {
                    **recipe,
                    "dataset": {**config("parquet", file).model_dump(exclude_defaults=True), "max_bad_samples": 9999},
                }
            )
        )
    (line,) = error.value.faults
    assert line.startswith("a.parquet cannot be read")


Build = Callable[[Path], object]


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda folder: (folder / "b.csv").symlink_to("/nowhere.csv"), "b.csv is no file that can be read"),
        (lambda folder: os.mkfifo(folder / "b.csv"), "b.csv is no file that can be read"),
        (lambda folder: (folder / "a.csv").rename(folder / os.fsdecode(b"\xff.csv")), "is not Unicode"),
        (
            lambda folder: [(folder / name).symlink_to(folder.parent / "more") for name in ("again", "twice")],
            "are one folder",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_not_passed_over(tmp_path: Path, build: Build, told: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "more").mkdir()
    (folder / "a.csv").write_text(CSV)
    build(folder)
    assert told in refused("csv", folder)


def test_tables_of_hidden_folders_are_left_out_and_linked_ones_read(tmp_path: Path) -> None:
    for name in ("data/__MACOSX", "data/.ipynb_checkpoints", "data/folder.csv", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.csv").write_text(CSV)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    names = {item.sample_id.rpartition("/")[0] for item in listed("csv", tmp_path / "data").items}
    assert names == {"folder.csv/a.csv", "link/a.csv"}
    globbed = {item.sample_id.rpartition("/")[0] for item in listed("csv", tmp_path / "data" / "*" / "*.csv").items}
    assert globbed == names


@pytest.mark.parametrize("source", ["csv", "image_folder", "webdataset"])
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path / "circle", tmp_path / ("x" * 300), tmp_path / "no" / "thing"):
        assert datasets.faults(config(source, path))


def tar(file: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(file, "w") as opened:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return file


def members(count: int = 20) -> dict[str, bytes]:
    pairs = [((f"{k:03}.png", png(k)), (f"{k:03}.cls", str(k % 2).encode())) for k in range(count)]
    return dict(member for pair in pairs for member in pair)


@pytest.mark.parametrize("at", [9, 20, 39])
def test_a_tar_that_is_cut_off_between_members_is_refused(tmp_path: Path, at: int) -> None:
    file = tar(tmp_path / "a.tar", members())
    with tarfile.open(file) as opened:
        end = opened.getmembers()[at].offset
    file.write_bytes(file.read_bytes()[:end])
    assert f"a.tar is cut off or damaged at byte {end:,}" in refused("webdataset", file)


def test_a_tar_with_a_damaged_header_is_refused_and_not_read_up_to_there(tmp_path: Path) -> None:
    file = tar(tmp_path / "a.tar", members())
    with tarfile.open(file) as opened:
        start = opened.getmembers()[30].offset
    content = bytearray(file.read_bytes())
    content[start : start + 300] = b"z" * 300
    file.write_bytes(content)
    assert "cut off or damaged" in refused("webdataset", file)


def test_two_tars_in_one_file_are_refused(tmp_path: Path) -> None:
    one, two = tar(tmp_path / "1.tar", members()).read_bytes(), tar(tmp_path / "2.tar", {"x.png": png(1)}).read_bytes()
    (tmp_path / "2.tar").unlink()
    (tmp_path / "1.tar").write_bytes(one + two)
    assert "goes on after its end" in refused("webdataset", tmp_path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"000.jpg": png(1)}, "a/000 has several pictures: .jpg, .png"),
        ({"000.PNG": png(1)}, "'000.PNG' is there twice"),
        ({"z\udcff.png": png(1)}, "is not Unicode"),
        ({"z.png": png(1), "z.json": b"[" * 100_000}, "a/z.json cannot be read: it is nested too deeply"),
        ({"z.png": png(1), "z.cls": b"\xff"}, "a/z.cls cannot be read"),
    ],
)
def test_members_of_a_tar_that_are_ambiguous_are_refused(tmp_path: Path, more: dict[str, bytes], told: str) -> None:
    assert told in refused("webdataset", tar(tmp_path / "a.tar", members() | more))


def test_hidden_members_are_no_samples_and_capitals_and_long_names_are(tmp_path: Path) -> None:
    hidden = {"__MACOSX/000.png": b"x", "a/.ipynb_checkpoints/1.png": b"x", "._001.png": b"x"}
    long = {f"{'x' * 300}{name.upper()}": content for name, content in members().items()}
    listing = listed("webdataset", tar(tmp_path / "A.TAR", hidden | long).parent)
    assert len(listing.items) == 20 and listing.read(5) == png(5)


def test_a_compressed_tar_beside_others_is_not_passed_over(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", members())
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(b""))
    assert "b.tar.gz is compressed" in refused("webdataset", tmp_path)
