"""The table of predictions that `evaluate` and `predict` write, a row for each sample in the samples' order.

    sample_id      string
    label          evaluate only: the class's name; the names of all classes that apply; C numbers. Null if unknown
    unknown        evaluate only, several labels: names of the classes with an unknown label
    predicted      the class's name; the names of all classes that apply; C numbers
    probability    of the predicted class; of each predicted class, in the same order; no such column for numbers
    probabilities  on request: of all C classes, in the order of the schema's metadata `classes`
    error          predict only: why the sample could not be read, with null in the columns before; else null

Three forms belong to the tasks classification, multilabel and regression, in this order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from aft_ray.export.scores import probabilities
from aft_ray.store.schema import UNLABELED


@dataclass(frozen=True)
class PredictionTable:
    """The columns of a table; `rows` makes its rows.

    classes: names of the C outputs. with_labels: for evaluate. with_errors: for predict.
    """

    task: str
    classes: Sequence[str]
    all_probabilities: bool = False
    with_labels: bool = False
    with_errors: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        name, number = pa.string(), pa.float32()
        numbers = pa.list_(number, len(self.classes))
        answer = {"classification": name, "multilabel": pa.list_(name), "regression": numbers}[self.task]
        columns = {"sample_id": name}
        if self.with_labels:
            columns["label"] = answer
            if self.task == "multilabel":
                columns["unknown"] = answer
        columns["predicted"] = answer
        if self.task != "regression":
            columns["probability"] = number if self.task == "classification" else pa.list_(number)
            if self.all_probabilities:
                columns["probabilities"] = numbers
        if self.with_errors:
            columns["error"] = name
        in_order = numbers in columns.values()
        return pa.schema(columns.items(), {"classes": json.dumps(list(self.classes))} if in_order else None)

    def rows(
        self,
        sample_ids: Sequence[str],
        logits: np.ndarray,
        *,
        labels: np.ndarray | None = None,
        errors: Mapping[int, str] | None = None,
    ) -> pa.Table:
        """Rows for n samples.

        logits: (m, C), for the m samples without an error, in order. labels: (n,) int64 or (n, C) float32, as in a store.
        errors: by the sample's number.
        """
        columns = self._answers(logits)
        if labels is not None:
            columns |= self._labels(labels)
        if errors:
            good = [number for number in range(len(sample_ids)) if number not in errors]
            place = np.full(len(sample_ids), -1)
            place[good] = np.arange(len(good))
            columns = {name: column.take(pa.array(place, mask=place < 0)) for name, column in columns.items()}
        columns["sample_id"] = pa.array(sample_ids, pa.string())
        columns["error"] = pa.array([(errors or {}).get(number) for number in range(len(sample_ids))], pa.string())
        return pa.table([columns[name] for name in self.schema.names], self.schema)

    @cached_property
    def _names(self) -> pa.Array:
        return pa.array(self.classes, pa.string())

    def _answers(self, logits: np.ndarray) -> dict[str, pa.Array]:
        if self.task == "regression":
            return {"predicted": self._numbers(logits)}
        chances = probabilities(self.task, logits)
        found = {"probabilities": self._numbers(chances)} if self.all_probabilities else {}
        if self.task == "classification":
            best = logits.argmax(1)
            return found | {
                "predicted": self._names.take(pa.array(best)),
                "probability": pa.array(chances[np.arange(len(best)), best]),
            }
        chosen = logits > 0
        return found | {"predicted": self._named(chosen), "probability": _lists(chosen, pa.array(chances[chosen]))}

    def _labels(self, labels: np.ndarray) -> dict[str, pa.Array]:
        if self.task == "classification":
            return {"label": self._names.take(pa.array(labels, mask=labels == UNLABELED))}
        unknown = np.isnan(labels)
        if self.task == "multilabel":
            return {"label": _nulled(self._named(labels > 0.5), unknown.all(1)), "unknown": self._named(unknown)}
        return {"label": _nulled(self._numbers(labels, mask=unknown), unknown.all(1))}

    def _numbers(self, values: np.ndarray, mask: np.ndarray | None = None) -> pa.Array:
        flat = pa.array(values.ravel(), pa.float32(), mask=None if mask is None else mask.ravel())
        return pa.FixedSizeListArray.from_arrays(flat, len(self.classes))

    def _named(self, which: np.ndarray) -> pa.Array:
        """(n, C) bool to the names of the classes that are true."""
        return _lists(which, self._names.take(pa.array(np.nonzero(which)[1])))


def _lists(which: np.ndarray, values: pa.Array) -> pa.Array:
    """A list for each row: the values of its true elements, from all of them one after the other."""
    offsets = np.concatenate([[0], which.sum(1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _nulled(column: pa.Array, without: np.ndarray) -> pa.Array:
    """The column with null in the rows where `without` is true."""
    return column.take(pa.array(np.arange(len(column)), mask=without))
