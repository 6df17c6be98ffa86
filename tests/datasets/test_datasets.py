"""Every source of the user's own data, and what is wrong with it, named by its row."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray import datasets
from aft_ray.datasets import list_samples
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.side_by_side import open_store
from tests.helpers.hub_data import png

TEXT = {"text": "text"}


def dataset(**keys: Any) -> DatasetConfig:
    return DatasetConfig.model_validate(keys)


def recipe(tmp_path: Path, **keys: object) -> Recipe:
    return Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": keys, "student": {"model": "tiny:cnn"}}
    )


def write_csv(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    found = list(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*found[0]])
        writer.writeheader()
        writer.writerows(found)
    return file


def write_jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def sentences(count: int = 60) -> list[dict[str, Any]]:
    return [
        {"text": f'sätze, "{index}"\nover lines', "label": "odd" if index % 2 else "even"} for index in range(count)
    ]


@pytest.mark.parametrize("source", WRITERS)
def test_rows_become_samples(tmp_path: Path, source: str) -> None:
    file = WRITERS[source](tmp_path / f"daten-ä.{source}", sentences())
    given = recipe(tmp_path, source=source, path=str(file), columns=TEXT, samples_per_shard=16)
    assert datasets.faults(given.dataset) == []
    manifests = prepare(given)
    seen = {}
    for split, manifest in manifests.items():
        assert (manifest["modality"], manifest["task"], manifest["classes"]) == (
            "text",
            "classification",
            ["even", "odd"],
        )
        assert manifest["truncation_side"] == "right"
        store = open_store(given.workspace, split)
        for shard in map(store.read_shard, range(store.num_shards)):
            for sample_id, label, text in zip(shard["sample_id"], shard["label"], shard["text"], strict=True):
                row = int(sample_id.rpartition("/")[2]) - 1
                assert (text, label) == (sentences()[row]["text"], row % 2)
                seen[sample_id] = split
    assert len(seen) == 60 and f"{file.name}/1" in seen
    assert sum(sum(manifest["samples_per_class"].values()) for manifest in manifests.values()) == 60


def test_files_and_folders_name_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test", "dev/part"):
        write_csv(tmp_path / "data" / f"{name}.csv", sentences(20))
    config = dataset(source="csv", path=str(tmp_path / "data"), columns=TEXT)
    found = {split: len(indices) for split, indices in choose_splits(list_samples(config), config).items()}
    assert found == {"train": 40, "validation": 20, "test": 20}
    held_out = dataset(
        source="csv", path=str(tmp_path / "data"), columns=TEXT, splits={"train": "train", "test": "dev"}
    )
    chosen = choose_splits(list_samples(held_out), held_out)
    assert len(chosen["test"]) == 20 and 0 < len(chosen["validation"]) < 15 and sum(map(len, chosen.values())) == 60
    globbed = dataset(source="csv", path=str(tmp_path / "data" / "*.csv"), columns=TEXT)
    assert {item.split for item in list_samples(globbed).items} == {"train", "test"}
    write_csv(tmp_path / "data" / "more.csv", sentences(2))
    (line,) = datasets.faults(config)
    assert "more.csv in" in line and "name no split, other files do" in line


def test_a_column_names_splits_and_groups(tmp_path: Path) -> None:
    rows = [{**row, "fold": "dev" if i % 3 else "train", "page": i // 5} for i, row in enumerate(sentences(300))]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    config = dataset(
        source="jsonl",
        path=str(file),
        columns={"text": "text", "split": "fold", "group": "page"},
        validation_fraction=0.3,
    )
    listing = list_samples(config)
    chosen = choose_splits(listing, config)
    assert len(chosen["validation"]) == 200 and len(chosen["train"]) + len(chosen["test"]) == 100
    pages = {split: {listing.items[i].group for i in chosen[split]} for split in ("train", "test")}
    assert not pages["train"] & pages["test"]
    write_jsonl(file, [{**sentences(1)[0], "fold": "holdout", "page": 1}])
    with pytest.raises(InputError, match="a.jsonl, row 1: split 'holdout' is none of train, training"):
        list_samples(config)


def test_pictures_by_path_bytes_and_pair(tmp_path: Path) -> None:
    (tmp_path / "bilder ü").mkdir()
    for index in range(40):
        (tmp_path / "bilder ü" / f"{index}.png").write_bytes(png(index))
    paths = [{"file": f"bilder ü/{index}.png", "label": index % 2} for index in range(40)]
    inside = [{"file": {"bytes": png(index), "path": None}, "label": index % 2} for index in range(40)]
    tables = {
        "csv": write_csv(tmp_path / "a.csv", paths),
        "jsonl": write_jsonl(tmp_path / "a.jsonl", paths),
        "parquet": write_parquet(tmp_path / "a.parquet", inside),
    }
    for source, file in tables.items():
        listing = list_samples(dataset(source=source, path=str(file), columns={"image": "file"}))
        assert listing.classes == ("0", "1") and listing.modality == "image"
        assert [listing.read(index) for index in (0, 39)] == [png(0), png(39)]
        assert (listing.uri is None) == (source == "parquet")
    given = recipe(tmp_path, source="csv", path=str(tables["csv"]), columns={"image": "file"}, copy=False)
    prepare(given)
    shard = open_store(given.workspace, "train").read_shard(0)
    assert shard["image"][0] == png(int(shard["sample_id"][0].partition("/")[2]) - 1)


def test_pictures_with_texts(tmp_path: Path) -> None:
    rows = [{"image": png(i), "caption": f"a {i}", "place": "here", "label": i % 3} for i in range(60)]
    file = write_parquet(tmp_path / "a.parquet", rows)
    columns = {"image": "image", "text": ["caption", "place"]}
    given = recipe(tmp_path, source="parquet", path=str(file), columns=columns, prompt="{place}: {caption}?{place}")
    manifests = prepare(given)
    assert manifests["train"]["modality"] == "image+text" and manifests["test"]["truncation_side"] == "right"
    shard = open_store(given.workspace, "test").read_shard(0)
    row = int(shard["sample_id"][0].partition("/")[2]) - 1
    assert (shard["text"][0], shard["image"][0]) == (f"here: a {row}?here", png(row))
    without = dataset(source="parquet", path=str(file), columns=columns)
    assert list_samples(without).read(0) == (png(0), "a 0\nhere")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([["b", "a"], [], ["c"], None], [(1, 1, 0), (0, 0, 0), (0, 0, 1), None]),
        ([[2, 0], [1], [], None], [(1, 0, 1), (0, 1, 0), (0, 0, 0), None]),
    ],
)
def test_several_labels_in_a_list(tmp_path: Path, labels: list[Any], expected: list[Any]) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": label} for label in labels])
    listing = list_samples(dataset(source="jsonl", path=str(file), columns=TEXT, task="multilabel"))
    assert [item.label for item in listing.items] == expected and len(listing.classes) == 3


def test_several_labels_in_a_csv_and_in_columns(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "a.csv",
        [{"text": "x", "tags": tags, "wet": wet, "red": 1} for tags, wet in (("b;a", 1), ('["a"]', 0), ("a", ""))],
    )
    tags = list_samples(dataset(source="csv", path=str(file), columns={**TEXT, "label": "tags"}, task="multilabel"))
    assert [item.label for item in tags.items] == [(1, 1), (1, 0), (1, 0)] and tags.classes == ("a", "b")
    flags = list_samples(
        dataset(source="csv", path=str(file), columns={**TEXT, "label": ["wet", "red"]}, task="multilabel")
    )
    assert [item.label for item in flags.items] == [(1, 1), (0, 1), None] and flags.classes == ("wet", "red")


def test_numbers_to_predict_are_prepared(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "width": i / 2, "height": "" if i == 7 else -i} for i in range(80)]
    file = write_csv(tmp_path / "a.csv", rows)
    columns = {**TEXT, "label": ["width", "height"]}
    given = recipe(tmp_path, source="csv", path=str(file), columns=columns, task="regression")
    manifests = prepare(given)
    assert manifests["train"]["classes"] == ["width", "height"] and manifests["train"]["task"] == "regression"
    assert sum(manifest["num_unlabelled"] for manifest in manifests.values()) == 1
    shard = open_store(given.workspace, "train").read_shard(0)
    rows_of_shard = [int(sample_id.partition("/")[2]) - 1 for sample_id in shard["sample_id"]]
    for row, label in zip(rows_of_shard, shard["label"], strict=True):
        np.testing.assert_array_equal(label, [np.nan, np.nan] if row == 7 else [row / 2, -row])


def test_samples_without_a_label(tmp_path: Path) -> None:
    labels = ["a", "b", "", None, "b"]
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": label} for label in labels])
    listing = list_samples(dataset(source="jsonl", path=str(file), columns=TEXT))
    assert [item.label for item in listing.items] == [0, 1, -1, -1, 1]
    numbered = dataset(source="jsonl", path=str(file), columns=TEXT, label_names=("b", "a", "c"))
    assert [item.label for item in list_samples(numbered).items] == [1, 0, -1, -1, 0]


WRONG = [
    ("csv", [{"text": "x", "y": 1}], {}, "a.csv has no column 'label' (columns.label). Columns: text, y."),
    (
        "jsonl",
        [{"text": "x", "label": 1}, {"text": "x", "label": [1]}],
        {},
        "a.jsonl, row 2: label [1] is of type list, not the",
    ),
    ("jsonl", [{"text": "x", "label": 0.5}], {}, "a.jsonl, row 1: label 0.5 is of type float, not the name or number"),
    (
        "jsonl",
        [{"text": "x", "label": 1}, {"text": "x", "label": "b"}],
        {},
        "1 in a.jsonl, row 1, 'b' in a.jsonl, row 2",
    ),
    (
        "csv",
        [{"text": "x", "label": "c"}],
        {"label_names": ("a", "b")},
        "a.csv, row 1: label 'c' is none of the classes: a, b",
    ),
    ("csv", [{"text": "x", "label": 2}], {"label_names": ("a", "b")}, "a.csv, row 1: label 2 is none of the 2 classes"),
    ("csv", [{"text": "x", "label": "hot"}], {"task": "regression"}, "a.csv, row 1: label 'hot' is not a number"),
    ("csv", [{"text": "x", "label": "inf"}], {"task": "regression"}, "a.csv, row 1: label 'inf' is not finite"),
    (
        "jsonl",
        [{"text": "x", "label": 3}],
        {"task": "multilabel"},
        "a.jsonl, row 1: label 3 is of type int, not a list of classes",
    ),
    (
        "jsonl",
        [{"text": "x", "label": {"a": 1}}],
        {"task": "regression"},
        "a.jsonl, row 1: label {'a': 1} is not a number",
    ),
    ("jsonl", [{"text": "x", "label": 1, "id": None}], {"columns": {**TEXT, "id": "id"}}, "row 1: id None is no text"),
]


@pytest.mark.parametrize(("source", "rows", "more", "fault"), WRONG)
def test_wrong_rows_are_named(tmp_path: Path, source: str, rows: list, more: dict, fault: str) -> None:
    file = WRITERS[source](tmp_path / f"a.{source}", rows)
    with pytest.raises(InputError) as caught:
        list_samples(dataset(**{"source": source, "path": str(file), "columns": TEXT, **more}))
    assert fault in caught.value.faults[0]


def test_many_wrong_rows_are_counted(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": 0.5 + index} for index in range(50)])
    with pytest.raises(InputError) as caught:
        list_samples(dataset(source="jsonl", path=str(file), columns=TEXT))
    assert len(caught.value.faults) == 21 and caught.value.faults[-1] == "... and 30 more."


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", b"text,label\nx,1\ny\n", "a.csv, row 2: 1 values, the header has 2."),
        ("a.csv", b"text,text,label\n", "column text is there twice"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", "cannot be read as csv"),
        ("a.jsonl", b'{"text": "x", "label": 1}\n{"text"\n', "a.jsonl, row 2: not JSON"),
        ("a.jsonl", b"[1, 2]\n", "a.jsonl, row 1: a list, not a JSON object."),
        ("a.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("a.parquet", b"", "cannot be read as parquet"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    config = dataset(source=name.partition(".")[2], path=str(file), columns=TEXT)
    with pytest.raises(InputError) as caught:
        list_samples(config)
    assert fault in str(caught.value)


def test_a_class_that_train_has_not_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "data" / "train.csv", sentences(10))
    write_csv(tmp_path / "data" / "test.csv", [{"text": "x", "label": "prime"}])
    with pytest.raises(InputError, match="Split test has classes that train has not: prime. Name all classes"):
        list_samples(dataset(source="csv", path=str(tmp_path / "data"), columns=TEXT))


def test_odd_texts_are_quarantined_or_kept(tmp_path: Path) -> None:
    rows = [{"text": f"t{index}", "label": index % 2} for index in range(60)]
    rows[3]["text"], rows[4]["text"], rows[5]["text"], rows[6]["text"] = "  \n", "ä" * 100_000, None, 3.5
    rows[7]["text"] = "\ud800"
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError) as caught:
        prepare(recipe(tmp_path / "strict", source="jsonl", path=str(file), columns=TEXT))
    assert "Sample a.jsonl/4 cannot be read: its text is empty." in caught.value.faults
    given = recipe(tmp_path, source="jsonl", path=str(file), columns=TEXT, max_bad_samples=4)
    manifests = prepare(given)
    reasons = {bad["sample_id"]: bad["reason"] for manifest in manifests.values() for bad in manifest["quarantined"]}
    assert set(reasons) == {"a.jsonl/4", "a.jsonl/6", "a.jsonl/7", "a.jsonl/8"}
    assert reasons["a.jsonl/7"] == "column text holds 3.5, which is of type float, not a text"
    texts = [open_store(given.workspace, split).read_shard(0)["text"] for split in manifests]
    assert max(len(text) for found in texts for text in found) == 100_000


def test_one_empty_column_of_two_is_no_fault(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", [{"q1": "what?", "q2": "", "label": 1}, {"q1": "", "q2": "", "label": 0}])
    config = dataset(source="csv", path=str(file), columns={"text": ["q1", "q2"]}, prompt="1: {q1} 2: {q2} same?")
    listing = list_samples(config)
    assert listing.read(0) == "1: what? 2:  same?"
    with pytest.raises(ValueError, match="its text is empty"):
        listing.read(1)


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": index % 2, "key": f"k{index % 57}"} for index in range(60)]
    file = write_csv(tmp_path / "a.csv", rows)
    given = recipe(tmp_path, source="csv", path=str(file), columns={**TEXT, "id": "key"})
    with pytest.raises(InputError, match=r"Sample ids must differ: 'k0' \(2 times\), 'k1' \(2 times\), 'k2'"):
        prepare(given)


def test_another_prompt_is_noticed(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", sentences())
    prepare(recipe(tmp_path, source="csv", path=str(file), columns=TEXT))
    with pytest.raises(InputError, match="prompt is None on disk, 'Say {text}' in this run"):
        prepare(recipe(tmp_path, source="csv", path=str(file), columns=TEXT, prompt="Say {text}"))


def test_train_fraction_keeps_a_share_of_each_class_of_train_only(tmp_path: Path) -> None:
    rows = [{"text": f"t{index}", "label": "rare" if index % 50 == 0 else "b"} for index in range(1000)]
    file = write_csv(tmp_path / "a.csv", rows)

    def chosen(fraction: float) -> dict[str, list[int]]:
        config = dataset(source="csv", path=str(file), columns=TEXT, train_fraction=fraction)
        return {split: kept.tolist() for split, kept in choose_splits(list_samples(config), config).items()}

    whole, tenth, least = chosen(1), chosen(0.1), chosen(0.001)
    assert tenth["test"] == whole["test"] and tenth["validation"] == whole["validation"]
    rare = [index for index in whole["train"] if index % 50 == 0]
    assert len([index for index in tenth["train"] if index % 50 == 0]) == round(len(rare) / 10)
    assert len(tenth["train"]) == pytest.approx(len(whole["train"]) / 10, abs=1)
    assert set(least["train"]) < set(tenth["train"]) < set(whole["train"]) and len(least["train"]) == 2


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"source": "csv", "columns": {"text": "t"}}, "source 'csv' needs 'path'"),
        ({"source": "hub", "columns": {"text": "t"}}, "source 'hub' needs 'repo'"),
        ({"source": "csv", "path": "a"}, "needs columns.text, columns.image or both"),
        ({"source": "image_folder", "path": "a", "prompt": "{t}"}, "'prompt' has no effect with source 'image_folder'"),
        (
            {"source": "csv", "path": "a", "columns": {"text": "t"}, "prompt": "{u}"},
            "prompt names 'u'; columns.text: t",
        ),
        ({"source": "csv", "path": "a", "columns": {"text": "t"}, "prompt": "no"}, "prompt has no place for a column"),
        (
            {"source": "csv", "path": "a", "columns": {"text": "t", "label": ["a", "b"]}},
            "need task multilabel or regression",
        ),
        ({"name": "imdb", "splits": {"test": "test"}}, "splits must name train"),
    ],
)
def test_keys_that_make_no_sense(config: dict, fault: str) -> None:
    with pytest.raises(ValueError) as caught:
        dataset(**config)
    assert fault in str(caught.value)


def test_named_data_sets_take_only_their_keys() -> None:
    lines = datasets.faults(dataset(name="mnist5k", path="here", truncation_side="left"))
    assert lines == [
        "dataset: 'path' has no effect with data set 'mnist5k'. Leave it out.",
        "dataset: 'truncation_side' has no effect with data set 'mnist5k'. Leave it out.",
    ]


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


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def test_webdataset_tars(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for split in ("train", "test"):
        with tarfile.open(raw / f"{split}-000.tar", "w") as tar:
            for index in range(40):
                add_member(tar, f"a/{index:04d}.png", png(index))
                add_member(tar, f"a/{index:04d}.txt", f"picture {index}".encode())
                add_member(tar, f"a/{index:04d}.cls", str(index % 2).encode())
    given = recipe(tmp_path, source="webdataset", path=str(raw), label_names=("no", "yes"))
    assert datasets.faults(given.dataset) == []
    manifests = prepare(given)
    assert manifests["test"]["num_samples"] == 40 and manifests["test"]["modality"] == "image+text"
    shard = open_store(given.workspace, "test").read_shard(0)
    row = int(shard["sample_id"][0][-4:])
    assert shard["sample_id"][0] == f"test-000/a/{row:04d}"
    assert (shard["text"][0], shard["image"][0], shard["label"][0]) == (f"picture {row}", png(row), row % 2)


def test_webdataset_labels_in_json(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(4):
            add_member(tar, f"{index}.txt", b"x")
            add_member(tar, f"{index}.json", json.dumps({"size": index / 2}).encode())
    config = dataset(source="webdataset", path=str(tmp_path / "a.tar"), columns={"label": "size"}, task="regression")
    assert [item.label for item in list_samples(config).items] == [(0.0,), (0.5,), (1.0,), (1.5,)]
    with pytest.raises(InputError, match="a/0.json has no key label. Keys: size."):
        list_samples(dataset(source="webdataset", path=str(tmp_path / "a.tar")))


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png"])
def test_members_that_lead_out_of_a_tar_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_member(tar, name, b"x")
    with pytest.raises(InputError, match="is no plain file inside the tar"):
        list_samples(dataset(source="webdataset", path=str(tmp_path)))
    (tmp_path / "a.tar").write_bytes(gzip.compress(b"no tar"))
    with pytest.raises(InputError, match="is no plain tar"):
        list_samples(dataset(source="webdataset", path=str(tmp_path)))


def test_links_in_a_tar_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InputError, match="'1.png' is no plain file inside the tar"):
        list_samples(dataset(source="webdataset", path=str(tmp_path)))


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


MEMORY = """
import sys
from pathlib import Path
from aft_ray.recipe.config import Recipe
from aft_ray.datasets.prepare import prepare
import aft_ray.datasets, pyarrow.parquet, PIL.PngImagePlugin

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024

recipe = lambda name: Recipe.model_validate({
    "workspace": sys.argv[1] + "/work-" + name, "student": {"model": "tiny:cnn"},
    "dataset": {"source": "parquet", "path": sys.argv[1] + f"/{name}.parquet", "samples_per_shard": 16,
                "columns": {"image": "image"}},
})
prepare(recipe("small"))
before = peak()
prepare(recipe("large"))
print(peak() - before)
"""


def test_a_large_table_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)

    def write(name: str, count: int, row_group: int) -> None:
        schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
        with pq.ParquetWriter(tmp_path / f"{name}.parquet", schema, compression="snappy") as writer:
            for start in range(0, count, row_group):
                images = [png(0) + noise.bytes(250_000) for _ in range(row_group)]
                writer.write_table(pa.table([images, [(start + i) % 2 for i in range(row_group)]], schema=schema))

    write("small", 200, 100)
    write("large", 800, 100)
    assert (tmp_path / "large.parquet").stat().st_size > 190e6
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60, f"{done.stdout} MB more than for a small table"
