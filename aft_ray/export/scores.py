"""Scores of a finished student on a split, in plain numpy, as sums over batches where that is possible.

N samples, C classes or outputs. `add` takes a batch of float32 logits (n, C) and labels; `result` gives JSON values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from aft_ray.store.schema import UNLABELED

NUM_BINS = 15
"""Bins of equal width for the calibration error."""
TOP = 5
FEW_CLASSES = 256
"""Up to this many classes, results list every class and the whole confusion matrix; above, only the classes that occur."""

SCORES = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "macro_f1": "macro F1",
    "mean_average_precision": "mean average precision",
    "nll": "negative log-likelihood",
    "ece": "expected calibration error",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
}
"""Keys of an evaluation's result, with their names for people."""


class Scores(ABC):
    """Running scores over the labelled samples of a split."""

    @abstractmethod
    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch. Samples, or single numbers, without a label are not counted."""

    @abstractmethod
    def result(self, classes: Sequence[str]) -> dict[str, Any]:
        """The scores by name, null where there is nothing to score. `per_class` has a row of numbers for each class; with
        more than FEW_CLASSES, for each class that occurs or is predicted."""


def scores_of(task: str, num_outputs: int) -> Scores:
    """Empty scores for a task, a schema.Task."""
    if task == "classification":
        return ClassificationScores(num_outputs)
    return MultilabelScores(num_outputs) if task == "multilabel" else RegressionScores(num_outputs)


def probabilities(task: str, logits: np.ndarray) -> np.ndarray:
    """(n, C) float32: softmax over the classes, or a sigmoid for each of several labels."""
    exact = logits.astype(np.float64)
    if task == "multilabel":
        return np.exp(-np.logaddexp(0, -exact)).astype(np.float32)
    return np.exp(_log_softmax(exact)).astype(np.float32)


class ClassificationScores(Scores):
    """`accuracy`; `top5_accuracy` where C > 5; `macro_f1`, over the classes that occur or are predicted; `nll`, the mean
    negative log-likelihood; `ece`, the expected calibration error over 15 equal bins of the highest probability; per class
    `n`, `precision`, `recall`, `f1`; `confusion[i][j]`, samples of class i taken for class j, or for many classes
    `confusion_pairs`, rows of `class`, `predicted` and `n` for the pairs that occur.
    """

    def __init__(self, num_outputs: int) -> None:
        self.num_outputs = num_outputs
        self.pairs: Counter[int] = Counter()  # by i * C + j, since a C x C matrix may take gigabytes
        self.nll, self.in_top = 0.0, 0
        self.bins = np.zeros((NUM_BINS, 3))  # samples, confidence, right ones

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        labeled = labels != UNLABELED
        logits, labels = logits[labeled].astype(np.float64), labels[labeled]
        rows, log_probabilities = np.arange(len(labels)), _log_softmax(logits)
        predicted, own = logits.argmax(1), logits[rows, labels][:, None]
        self.pairs.update((labels * self.num_outputs + predicted).tolist())
        self.nll -= log_probabilities[rows, labels].sum()
        before = (logits > own).sum(1) + ((logits == own) & (np.arange(logits.shape[1]) < labels[:, None])).sum(1)
        self.in_top += int((before < TOP).sum())
        confidence = np.exp(log_probabilities.max(1)) if len(labels) else np.empty(0)
        bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
        np.add.at(self.bins, bins, np.stack([np.ones_like(confidence), confidence, predicted == labels], 1))

    def result(self, classes: Sequence[str]) -> dict[str, Any]:
        size = self.num_outputs
        labels, guesses = np.divmod(np.array(sorted(self.pairs), np.int64), size)
        counts = np.array([self.pairs[pair] for pair in sorted(self.pairs)], np.int64)
        actual, predicted, right = (np.zeros(size, np.int64) for _ in range(3))
        np.add.at(actual, labels, counts)
        np.add.at(predicted, guesses, counts)
        same = labels == guesses
        right[labels[same]] = counts[same]
        count, f1, occur = int(counts.sum()), _ratios(2 * right, actual + predicted), actual + predicted > 0
        columns = zip(classes, actual, _ratios(right, predicted), _ratios(right, actual), f1, strict=True)
        rows = [
            {"class": name, "n": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
            for name, n, p, r, f in columns
        ]
        return {
            "num_samples": count,
            "accuracy": _mean(right.sum(), count),
            "top5_accuracy": _mean(self.in_top, count) if len(classes) > TOP else None,
            "macro_f1": float(f1[occur].mean()) if count else None,
            "nll": _mean(self.nll, count),
            "ece": _mean(np.abs(self.bins[:, 1] - self.bins[:, 2]).sum(), count),
            "per_class": _listed(rows, occur),
            **_confusion(classes, labels, guesses, counts),
        }


def _confusion(
    classes: Sequence[str], labels: np.ndarray, guesses: np.ndarray, counts: np.ndarray
) -> dict[str, list[Any]]:
    """The matrix of few classes; of many, the pairs that occur."""
    if len(classes) <= FEW_CLASSES:
        matrix = np.zeros((len(classes), len(classes)), np.int64)
        matrix[labels, guesses] = counts
        return {"confusion": matrix.tolist()}
    triples = zip(labels.tolist(), guesses.tolist(), counts.tolist(), strict=True)
    return {"confusion_pairs": [{"class": classes[i], "predicted": classes[j], "n": n} for i, j, n in triples]}


class MultilabelScores(Scores):
    """`accuracy` of the single labels, at probability 0.5; `mean_average_precision` over the classes that occur;
    `macro_f1`; `nll`, the mean binary cross-entropy; per class `n`, `average_precision`, `precision`, `recall`, `f1`.
    """

    def __init__(self, num_outputs: int) -> None:
        self.logits = [np.empty((0, num_outputs), np.float32)]
        self.labels = [np.empty((0, num_outputs), np.float32)]

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        self.logits.append(logits.astype(np.float32))
        self.labels.append(labels)

    def result(self, classes: Sequence[str]) -> dict[str, Any]:
        logits, labels = np.concatenate(self.logits).astype(np.float64), np.concatenate(self.labels)
        there, positive, chosen = ~np.isnan(labels), labels > 0.5, logits > 0
        right = (positive & chosen).sum(0)
        actual, predicted = positive.sum(0), (chosen & there).sum(0)
        f1 = _ratios(2 * right, actual + predicted)
        average = [average_precision(logits[t, k], positive[t, k]) for k, t in enumerate(there.T)]
        found = [value for value in average if value is not None]
        losses = np.logaddexp(0, np.where(positive, -logits, logits))
        columns = zip(classes, actual, average, _ratios(right, predicted), _ratios(right, actual), f1, strict=True)
        rows = [
            {
                "class": name,
                "n": int(n),
                "average_precision": average,
                "precision": float(p),
                "recall": float(r),
                "f1": float(f),
            }
            for name, n, average, p, r, f in columns
        ]
        return {
            "num_samples": int(there.any(1).sum()),
            "accuracy": _mean(((positive == chosen) & there).sum(), there.sum()),
            "mean_average_precision": float(np.mean(found)) if found else None,
            "macro_f1": float(f1[actual + predicted > 0].mean()) if (actual + predicted).any() else None,
            "nll": _mean(losses[there].sum(), there.sum()),
            "per_class": _listed(rows, actual + predicted > 0),
        }


class RegressionScores(Scores):
    """`mse` and `mae` over all numbers; `r2`, the mean over the outputs that vary; the same per output, with `n`."""

    def __init__(self, num_outputs: int) -> None:
        # Rows: n, squared errors, absolute errors; of the labels a shift, and their sum and squares about it.
        self.sums = np.zeros((6, num_outputs))

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        there = ~np.isnan(labels)
        labels = np.where(there, labels, 0).astype(np.float64)
        errors = np.where(there, logits - labels, 0)
        first = np.take_along_axis(labels, there.argmax(0)[None], 0)[0] if len(labels) else self.sums[3]
        self.sums[3] = np.where(self.sums[0] > 0, self.sums[3], first)  # keeps the squares small
        shifted = np.where(there, labels - self.sums[3], 0)
        added = [there, errors**2, np.abs(errors), np.zeros_like(errors), shifted, shifted**2]
        self.sums += np.stack([column.sum(0) for column in added])

    def result(self, classes: Sequence[str]) -> dict[str, Any]:
        n, squares, absolutes, _, total, total_squares = self.sums
        variation = np.maximum(0, total_squares - total**2 / np.maximum(1, n))
        explained = [_mean(v - s, v) for s, v in zip(squares, variation, strict=True)]
        found = [value for value in explained if value is not None]
        return {
            "num_samples": int(n.max(initial=0)),
            "mse": _mean(squares.sum(), n.sum()),
            "mae": _mean(absolutes.sum(), n.sum()),
            "r2": float(np.mean(found)) if found else None,
            "per_class": [
                {"class": name, "n": int(n[k]), "mse": _mean(s, n[k]), "mae": _mean(a, n[k]), "r2": explained[k]}
                for k, (name, s, a) in enumerate(zip(classes, squares, absolutes, strict=True))
            ],
        }


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Mean precision at the positives, each counted with all samples of at least its score; None without positives."""
    if not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], positive[order].cumsum()
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of each run of equal scores
    gained = np.diff(hits[last], prepend=0)
    return float((gained * hits[last] / (last + 1)).sum() / hits[-1])


def _listed(rows: list[dict[str, Any]], occur: np.ndarray) -> list[dict[str, Any]]:
    """All rows of few classes; of many, the rows of classes that occur or are predicted."""
    return rows if len(rows) <= FEW_CLASSES else [row for row, there in zip(rows, occur, strict=True) if there]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    normalised: np.ndarray = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return normalised


def _ratios(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Zero where the whole is zero."""
    return parts / np.maximum(1, wholes)


def _mean(total: float, count: float) -> float | None:
    return float(total / count) if count else None
