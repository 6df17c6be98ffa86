"""One table of predictions: the same columns from `evaluate` and `predict`, whatever the task and whatever could not be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aft_ray.export.predictions import PredictionTable
from aft_ray.export.scores import probabilities

LOGITS = np.array([[2.0, -1.0, 0.5], [-3.0, -2.0, -1.0]], np.float32)
CLASSES = ["cat", "dog", "fish"]
LABELS: dict[str, Any] = {
    "classification": np.array([1, -1]),
    "multilabel": np.array([[0, 1, np.nan], [np.nan] * 3], np.float32),
    "regression": np.array([[0.5, 1, np.nan], [np.nan] * 3], np.float32),
}


@pytest.mark.parametrize("task", LABELS)
@pytest.mark.parametrize("all_probabilities", [True, False])
def test_evaluate_and_predict_write_the_same_columns(task: str, all_probabilities: bool) -> None:
    of_evaluate = PredictionTable(task, CLASSES, all_probabilities, with_labels=True)
    of_predict = PredictionTable(task, CLASSES, all_probabilities, with_errors=True)
    evaluated = of_evaluate.rows(["a", "b"], LOGITS, labels=LABELS[task])
    predicted = of_predict.rows(["a", "broken", "b"], LOGITS, errors={1: "it is no picture"})
    common = [name for name in of_predict.schema.names if name != "error"]
    assert [name for name in of_evaluate.schema.names if name not in ("label", "unknown")] == common
    assert predicted.select(common).take([0, 2]).equals(evaluated.select(common))
    assert predicted.slice(1, 1).to_pylist() == [
        {**dict.fromkeys(common), "sample_id": "broken", "error": "it is no picture"}
    ]
    assert predicted["error"].null_count == 2


def test_classes_are_named_with_their_probabilities() -> None:
    chances = probabilities("classification", LOGITS)
    rows = PredictionTable("classification", CLASSES, True, with_labels=True).rows(
        ["a", "b"], LOGITS, labels=LABELS["classification"]
    )
    assert rows.to_pylist() == [
        {
            "sample_id": "a",
            "label": "dog",
            "predicted": "cat",
            "probability": chances[0, 0],
            "probabilities": [*chances[0]],
        },
        {
            "sample_id": "b",
            "label": None,
            "predicted": "fish",
            "probability": chances[1, 2],
            "probabilities": [*chances[1]],
        },
    ]


def test_of_several_labels_each_named_class_has_its_probability() -> None:
    chances = probabilities("multilabel", LOGITS)
    rows = PredictionTable("multilabel", CLASSES, with_labels=True).rows(
        ["a", "b"], LOGITS, labels=LABELS["multilabel"]
    )
    assert rows.to_pylist() == [
        {
            "sample_id": "a",
            "label": ["dog"],
            "unknown": ["fish"],
            "predicted": ["cat", "fish"],
            "probability": [chances[0, 0], chances[0, 2]],
        },
        {"sample_id": "b", "label": None, "unknown": CLASSES, "predicted": [], "probability": []},
    ]


def test_nothing_readable_is_a_table_too() -> None:
    for task in LABELS:
        form = PredictionTable(task, CLASSES, True, with_errors=True)
        table = form.rows(["a", "b"], np.empty((0, 3), np.float32), errors={0: "no", 1: "neither"})
        assert table["error"].to_pylist() == ["no", "neither"] and table["predicted"].null_count == 2
