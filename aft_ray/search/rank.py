"""rank: measures how much every combination of teachers knows about the task, before any training.

One pass over the train features and one over validation give, with the labels that training would use: LogME's score; the
validation accuracy of LogME's linear head (the posterior mean of Bayesian regression, its strength chosen by the evidence) and
of nearest neighbours; and the similarity of any two teachers (linear CKA). Two more passes measure how well each teacher alone
predicts the labels (`knowledge`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.recipe.errors import InputError
from aft_ray.search.heads import Heads, check_room, columns_of, labelled_rows, rows_with
from aft_ray.search.knowledge import Knowledge, advice, knowledge_of, train_labels
from aft_ray.search.rank_picture import rank_picture
from aft_ray.search.space import teacher_subsets
from aft_ray.store.workspace import Workspace
from aft_ray.training.inputs.order import has_label
from aft_ray.training.inputs.stores import Setup


@dataclass(frozen=True)
class Ranking:
    """rows: {teachers, log_me, val_accuracy, knn_accuracy}, the best linear head first, by LogME where heads are equal. LogME
    alone misleads where there are more features than labels: it rewards every further dimension, even noise.

    cka: (K, K) linear CKA of the teachers `names` over the train split: 1 where two say the same up to rotation, 0 where
    they have nothing in common (arXiv 1905.00414).

    knowledge: how well each teacher alone predicts the labels. advice: expectations, in sentences.
    """

    names: tuple[str, ...]
    rows: list[dict[str, Any]]
    cka: np.ndarray
    knowledge: list[Knowledge]
    advice: list[str]


def rank(setup: Setup) -> Ranking:
    """Ranks, and writes `rank.parquet`, `rank.json` (with the CKA matrix) and the picture `rank.png` to the workspace.

    Raises InputError as `ranking_of`.
    """
    ranking = ranking_of(setup)
    _write(Workspace.at(setup.recipe.workspace), ranking)
    return ranking


def ranking_of(setup: Setup) -> Ranking:
    """The ranking of the combinations that `search.teachers` names.

    Raises InputError if the recipe names no teachers, samples do not have one class each, a split has no label, or
    the combinations are too many for this machine's memory.
    """
    recipe, stores = setup.recipe, setup.stores
    if not recipe.teachers:
        raise InputError("The recipe names no teachers: there is nothing to rank.")
    if not can_rank(setup):
        raise InputError(
            f"Teachers are ranked by how well they tell classes apart; the task of these samples is"
            f" {setup.stores['train'].manifest['task']}. 'aft-ray search' tries sets of teachers by training."
        )
    train, names = stores["train"], recipe.teacher_names()
    columns = columns_of(names, train.teacher_dims)
    subsets = teacher_subsets(recipe)
    validation, validation_labels = labelled_rows(stores["validation"])
    labels = train_labels(train, recipe.train)
    if without := [
        name for name, own in (("train", labels), ("validation", validation_labels)) if not has_label(own).any()
    ]:
        raise InputError(
            [f"No sample of the {name} split has a label: there is nothing to rank teachers by." for name in without]
        )

    check_room(len(subsets), len(validation_labels))
    heads = Heads(columns, subsets, len(train.manifest["classes"]), validation)
    second_moments = _Covariance(sum(train.teacher_dims))
    for features, own_labels in rows_with(labels, train):
        second_moments.update(features)
        heads.update(features, own_labels)

    rows: list[dict[str, Any]] = []
    for subset in subsets:
        found = heads.answers(subset)
        right, knn = found.linear == validation_labels, found.neighbours == validation_labels
        facts = {"log_me": found.log_me, "val_accuracy": float(right.mean()), "knn_accuracy": float(knn.mean())}
        rows.append({"teachers": list(subset), **facts})
    rows.sort(key=lambda row: (-row["val_accuracy"], -row["log_me"]))
    alike = second_moments.cka([columns[name] for name in names])
    knowledge = knowledge_of(train, names, recipe.train)
    return Ranking(names, rows, alike, knowledge, advice(knowledge, labels, recipe.train))


def can_rank(setup: Setup) -> bool:
    """Whether there are teachers, and one class per sample; several labels and numbers are no classes."""
    task = setup.stores["train"].manifest.get("task", "classification")
    return bool(setup.recipe.teachers) and task == "classification"


class _Covariance:
    """Sums over samples that give every covariance of D features, in float64.

    They are taken about the mean of the first samples: products of float32 features would lose a covariance that is small
    beside the mean.
    """

    def __init__(self, width: int) -> None:
        self.count, self.sums, self.products = 0, np.zeros(width), np.zeros((width, width))
        self.origin: np.ndarray | None = None

    def update(self, features: np.ndarray) -> None:
        """features: (n, D) float32."""
        if self.origin is None:
            self.origin = features.mean(0)
        features = features - self.origin
        self.count += len(features)
        self.sums += features.sum(0, dtype=np.float64)
        self.products += features.T @ features

    def cka(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Linear CKA of every two groups of features: |X'Y|^2 / (|X'X| |Y'Y|), Frobenius norms of centred products."""
        centred = self.products - np.outer(self.sums, self.sums) / max(1, self.count)
        norms = np.array([[np.linalg.norm(centred[np.ix_(x, y)]) for y in parts] for x in parts])
        own = np.maximum(norms.diagonal(), 1e-150)  # its square is no zero: features that never change are like nothing
        return norms**2 / np.outer(own, own)


def _write(workspace: Workspace, ranking: Ranking) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ranking.rows), sink)
    files = {
        "rank.parquet": sink.getvalue(),
        "rank.png": rank_picture(ranking.rows, ranking.names, ranking.cka),
    }
    for name, content in files.items():
        workspace.write(name, content)
    facts: Mapping[str, Any] = {
        "rows": ranking.rows,
        "teachers": ranking.names,
        "cka": ranking.cka.round(6).tolist(),
        "knowledge": [asdict(knowledge) for knowledge in ranking.knowledge],
        "advice": ranking.advice,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    workspace.write_json("rank.json", facts)
