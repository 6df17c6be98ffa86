"""Every fault of a table is told with its file and its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.datasets import list_samples
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.errors import InputError
from tests.helpers.tables import TEXT, WRITERS, dataset, recipe, sentences, write_csv, write_jsonl

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
    (
        "csv",
        [{"text": "x", "label": "1,5"}],
        {"task": "regression"},
        "row 1: label '1,5' is not a number; write 0.5, not 0,5",
    ),
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


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": index % 2, "key": f"k{index % 57}"} for index in range(60)]
    file = write_csv(tmp_path / "a.csv", rows)
    given = recipe(tmp_path, source="csv", path=str(file), columns={**TEXT, "id": "key"})
    with pytest.raises(InputError, match=r"Sample ids must differ: 'k0' \(2 times\), 'k1' \(2 times\), 'k2'"):
        prepare(given)
