"""Several labels, numbers and missing labels in the tables of every source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aft_ray.datasets import list_samples
from aft_ray.datasets.prepare import prepare
from aft_ray.store.side_by_side import open_store
from tests.helpers.tables import TEXT, WRITERS, dataset, recipe, write_csv, write_jsonl


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


@pytest.mark.parametrize("source", [*WRITERS])
def test_booleans_with_names_are_the_same_classes_and_flags_in_every_table(tmp_path: Path, source: str) -> None:
    rows = [{"text": "x", "wet": wet, "red": red} for wet, red in ((True, False), (False, False), (True, True))]
    given = {"source": source, "path": str(WRITERS[source](tmp_path / f"a.{source}", rows))}
    for names, expected in ((("False", "True"), [1, 0, 1]), (("True", "False"), [0, 1, 0])):
        named = list_samples(dataset(**given, columns={**TEXT, "label": "wet"}, label_names=names))
        assert [item.label for item in named.items] == expected and not named.notes
    unnamed = list_samples(dataset(**given, columns={**TEXT, "label": "wet"}))
    told = ("The booleans of column wet are the classes 0 (false) and 1 (true)",) if source != "csv" else ()
    assert tuple(note.partition(".")[0] for note in unnamed.notes) == told
    flags = list_samples(dataset(**given, columns={**TEXT, "label": ["wet", "red"]}, task="multilabel"))
    assert [item.label for item in flags.items] == [(1, 0), (0, 0), (1, 1)] and flags.classes == ("wet", "red")


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
