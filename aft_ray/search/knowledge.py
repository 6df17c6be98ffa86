"""How much each teacher's features tell of the labels, and which methods can use that, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from aft_ray.recipe.sections import TrainConfig
from aft_ray.regularizers.alignment import label_alignment
from aft_ray.regularizers.fitted_probes import as_targets
from aft_ray.regularizers.probe import solve_probe, sum_rows
from aft_ray.search.heads import rows_with
from aft_ray.store.schema import UNLABELED
from aft_ray.store.side_by_side import Store
from aft_ray.training.inputs.order import kept_labels

CLEAR_ALIGNMENT = 0.15
"""AFT's target shows the labels from here on: it brought nothing at .07 (movie reviews), and something at .28 (glosses)."""
FEW_BATCHES = 3
"""A kernel of fewer rows than these many batches is learnt by heart: 100 rows in batches of 96 were harmful, 470 were not."""


@dataclass(frozen=True)
class Knowledge:
    """r2: leave-one-out, of the teacher's ridge probe; least_r2: the least to believe. alignment: debiased CKA of the features'
    kernel with the labels' kernel, NaN for too few rows."""

    teacher: str
    r2: float
    least_r2: float
    alignment: float

    @property
    def sentence(self) -> str:
        if self.r2 <= self.least_r2:
            return (
                f"{self.teacher}: its features say nothing about the labels beyond chance: leave it out. aft_probe and"
                " probe_kd do so by themselves, aft does not."
            )
        if self.alignment < CLEAR_ALIGNMENT:
            return (
                f"{self.teacher}: its features know the labels, its kernel hardly does: plain aft will not help,"
                " aft_probe can."
            )
        return f"{self.teacher}: its features know the labels, and its kernel shows them: aft can help, aft_probe too."


def knowledge_of(train: Store, names: Sequence[str], settings: TrainConfig) -> list[Knowledge]:
    """Of every teacher `names` by itself, from the train split with the labels that training would have.

    Reads each teacher's features twice.
    """
    found = []
    for name, features in zip(names, train.features, strict=True):
        alone = replace(train, features=(features,))
        batches = partial(_rows, alone, train_labels(alone, settings))
        statistics = sum_rows(batches, alone.teacher_dims[0], len(train.manifest["classes"]))
        probe = solve_probe(statistics, batches, alone.teacher_dims)
        found.append(Knowledge(name, probe.r2, probe.least_r2, label_alignment(statistics)))
    return found


def _rows(store: Store, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features and targets, a shard at a time."""
    for features, own in rows_with(labels, store):
        yield features, as_targets(own, len(store.manifest["classes"]))


def train_labels(store: Store, settings: TrainConfig) -> np.ndarray:
    """(N,) labels that training would have."""
    labels = np.concatenate(store.map_shards(lambda shard: shard["label"], columns=()))
    per_class = settings.labels_per_class
    return labels if per_class is None else kept_labels(labels, per_class, settings.seed)


def advice(found: Sequence[Knowledge], labels: np.ndarray, settings: TrainConfig) -> list[str]:
    """A sentence for each teacher, and one about the rows that a regularizer would see."""
    sentences = [knowledge.sentence for knowledge in found]
    num_labelled = int((labels != UNLABELED).sum())
    sees_unlabelled = num_labelled < len(labels) and settings.labeled_fraction < 1
    if not sees_unlabelled and num_labelled < FEW_BATCHES * settings.global_batch_size:
        sentences.append(
            f"Few labels ({num_labelled}) and no unlabelled rows in the batches: expect harm from a kernel of raw features,"
            " such as aft's. Add samples without labels, and compare with none."
        )
    return sentences
