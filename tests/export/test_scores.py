"""The scores of an evaluation against scikit-learn's, fed in uneven batches."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

from aft_ray.export.scores import Scores, average_precision, probabilities, scores_of

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)


def score(scores: Scores, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    for start, stop in ((0, 7), (7, 7), (7, 60), (60, len(logits))):
        scores.add(logits[start:stop], labels[start:stop])
    return scores.result([f"c{k}" for k in range(logits.shape[1])])


def test_classification() -> None:
    labels = RANDOM.integers(0, 7, 200)
    logits = (2 * RANDOM.normal(size=(200, 8)) + 3 * np.eye(8)[labels]).astype(np.float32)  # class 7 never occurs
    hidden = np.where(RANDOM.random(200) < 0.1, -1, labels)
    found = score(scores_of("classification", 8), logits, hidden)
    there = hidden >= 0
    x, y, p = logits[there], hidden[there], probabilities("classification", logits[there]).astype(float)
    predicted = x.argmax(1)
    precision, recall, f1, n = sk.precision_recall_fscore_support(y, predicted, labels=range(8), zero_division=0)
    assert found["num_samples"] == there.sum()
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert found["top5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(y, x, k=5, labels=range(8)))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y, predicted, average="macro"))
    assert found["nll"] == pytest.approx(sk.log_loss(y, p / p.sum(1, keepdims=True), labels=range(8)), abs=1e-6)
    assert found["confusion"] == sk.confusion_matrix(y, predicted, labels=range(8)).tolist()
    rows = found["per_class"]
    for key, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("n", n)):
        assert [row[key] for row in rows] == pytest.approx(expected.tolist())
    confidence, right = p.max(1), predicted == y
    edges = np.linspace(0, 1, 16)
    gaps = [
        abs(confidence[inside].sum() - right[inside].sum())
        for low, high in zip(edges, edges[1:], strict=False)
        if (inside := (confidence > low) & (confidence <= high)).any()
    ]
    assert found["ece"] == pytest.approx(sum(gaps) / len(y))


def test_many_classes_take_room_for_what_occurs() -> None:
    """ImageNet-21k's classes: a matrix would have 477 million numbers."""
    labels, logits = RANDOM.integers(0, 21_841, 64), RANDOM.normal(size=(64, 21_841)).astype(np.float32)
    logits[:20] += 10 * np.eye(21_841, dtype=np.float32)[labels[:20]]
    tracemalloc.start()
    found = score(scores_of("classification", 21_841), logits, labels)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    assert len(json.dumps(found)) < 20_000
    predicted = logits.argmax(1)
    pairs = Counter((f"c{label}", f"c{guess}") for label, guess in zip(labels, predicted, strict=True))
    assert {(row["class"], row["predicted"]): row["n"] for row in found["confusion_pairs"]} == pairs
    assert found["accuracy"] == (labels == predicted).mean() and found["num_samples"] == 64
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert {row["class"] for row in found["per_class"]} == {f"c{k}" for k in {*labels.tolist(), *predicted.tolist()}}


def test_few_classes_have_no_top_five_and_no_labels_no_scores() -> None:
    found = score(scores_of("classification", 3), np.zeros((80, 3), np.float32), np.full(80, -1))
    assert found["num_samples"] == 0 and found["top5_accuracy"] is None
    assert found["accuracy"] is found["nll"] is found["ece"] is found["macro_f1"] is None


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    found = score(scores_of("classification", 2), logits, np.array([0, 0]))
    assert found["nll"] == pytest.approx(1e4) and found["ece"] == pytest.approx(0.5)
    assert np.isfinite(probabilities("multilabel", logits)).all()


def test_multilabel() -> None:
    labels = (RANDOM.random((150, 4)) < 0.3).astype(np.float32)
    labels[:, 3] = 0  # a class that never applies
    logits = np.round(RANDOM.normal(size=(150, 4)) + labels, 1).astype(np.float32)  # with many ties
    found = score(scores_of("multilabel", 4), logits, labels)
    chosen = logits > 0
    expected = [sk.average_precision_score(labels[:, k], logits[:, k]) for k in range(3)]
    assert found["mean_average_precision"] == pytest.approx(np.mean(expected))
    assert found["accuracy"] == pytest.approx((chosen == (labels > 0.5)).mean())
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, chosen, average="macro", zero_division=0))
    p = 1 / (1 + np.exp(-logits.astype(float)))
    assert found["nll"] == pytest.approx(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())
    assert found["per_class"][3]["average_precision"] is None
    labels[5:40, 1] = np.nan
    found = score(scores_of("multilabel", 4), logits, labels)
    rows = ~np.isnan(labels[:, 1])
    assert found["per_class"][1]["average_precision"] == pytest.approx(
        sk.average_precision_score(labels[rows, 1], logits[rows, 1])
    )
    assert found["num_samples"] == 150


def test_average_precision_by_hand() -> None:
    assert average_precision(np.array([3.0, 2, 1]), np.array([True, False, True])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([1.0]), np.array([False])) is None


def test_regression() -> None:
    labels = (1000 + RANDOM.normal(size=(90, 2))).astype(np.float32)
    predicted = (labels + 0.3 * RANDOM.normal(size=(90, 2))).astype(np.float32)
    found = score(scores_of("regression", 2), predicted, labels)
    assert found["mse"] == pytest.approx(sk.mean_squared_error(labels, predicted), rel=1e-4)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(labels, predicted), rel=1e-4)
    assert found["r2"] == pytest.approx(sk.r2_score(labels, predicted), rel=1e-4)
    labels[:30, 0], labels[:, 1] = np.nan, 7
    found = score(scores_of("regression", 2), predicted, labels)
    assert found["per_class"][0]["r2"] == pytest.approx(sk.r2_score(labels[30:, 0], predicted[30:, 0]), rel=1e-4)
    assert found["per_class"][1]["r2"] is None and found["num_samples"] == 90
