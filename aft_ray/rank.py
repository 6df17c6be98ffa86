"""rank: how much every combination of teachers knows about the task, before anything is spent on training.

Two figures per combination, from the labels that training would have: LogME's score, and the validation accuracy of the
linear head that LogME fits on the way (the posterior mean of Bayesian regression, its strength chosen by the evidence).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.batches import kept_labels
from aft_ray.check import check, open_stores
from aft_ray.config import InputError, Recipe, teacher_subsets
from aft_ray.regularizers import LogMEStatistics
from aft_ray.schema import UNLABELED
from aft_ray.store import Store, Workspace


def rank(recipe: Recipe) -> list[dict[str, Any]]:
    """Rows {teachers, log_me, val_accuracy}, the highest LogME first; also written to `rank.parquet` in the workspace.

    Raises InputError for any fault of the recipe, or if features are missing.
    """
    check(recipe)
    if not recipe.teachers:
        raise InputError("The recipe names no teachers: there is nothing to rank.")
    stores = open_stores(recipe)
    train, train_labels = _read(stores["train"])
    validation, validation_labels = _read(stores["validation"])
    if recipe.train.labels_per_class is not None:
        train_labels = kept_labels(train_labels, recipe.train.labels_per_class, recipe.train.seed)
    bounds = np.cumsum([0, *stores["train"].teacher_dims])
    columns = {name: np.arange(bounds[k], bounds[k + 1]) for k, name in enumerate(recipe.teacher_names())}
    rows: list[dict[str, Any]] = []
    for subset in teacher_subsets(recipe):
        chosen = np.concatenate([columns[name] for name in subset])
        statistics = LogMEStatistics(len(chosen), len(stores["train"].manifest["classes"]))
        statistics.update(train[:, chosen], train_labels)
        score, weights = statistics.solve()
        labeled = validation_labels != UNLABELED
        right = (validation[labeled][:, chosen] @ weights.T).argmax(1) == validation_labels[labeled]
        rows.append({"teachers": list(subset), "log_me": score, "val_accuracy": float(right.mean())})
    rows.sort(key=lambda row: -row["log_me"])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    Workspace.at(recipe.workspace).write("rank.parquet", sink.getvalue())
    return rows


def _read(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, T) float32 and labels (N,) of a split."""
    shards = store.map_shards(lambda shard: (shard["features"], shard["label"]), columns=())
    return np.concatenate([features for features, _ in shards]), np.concatenate([labels for _, labels in shards])
