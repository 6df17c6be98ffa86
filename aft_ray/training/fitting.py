"""The data of a run, for methods that fit something to it before training (`aft_ray.regularizers.fitting`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch

from aft_ray.cluster.lease import lease
from aft_ray.models.students import Student
from aft_ray.recipe.config import fingerprint
from aft_ray.regularizers.fitting import RowBatches
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import read_tensors
from aft_ray.training.inputs.batches import Samples, evaluation_batches
from aft_ray.training.towers import Towers

BATCH_SIZE = 512


@dataclass(frozen=True)
class TrainingData:
    """One run's data, the same on every worker; DDP then sends out the main worker's tensors.

    reads: which of the student's features the regularizer reads. train: with the labels that training keeps. teachers: their
    names, in the recipe's order. workspace: where fitted tensors are kept, None keeps none. made_of: fingerprints of the samples
    and of each teacher's features.
    """

    student: Student
    reads: Towers
    train: Samples
    validation: Samples | None
    teachers: Sequence[str]
    device: torch.device
    weights_follow: bool
    workspace: Workspace | None
    made_of: Mapping[str, Any]

    @property
    def task(self) -> str:
        return self.train.task

    @property
    def num_outputs(self) -> int:
        return len(self.train.classes)

    @property
    def student_dim(self) -> int:
        width = self.reads.read(self.student.feature_dim)
        assert isinstance(width, int), "methods that multiply towers do not ask"
        return width

    @property
    def teacher_dims(self) -> tuple[int, ...]:
        return tuple(self.train.feature_dims[name] for name in self.teachers)

    @property
    def towers(self) -> tuple[int, ...] | None:
        return self.reads.of_teachers

    def teacher_rows(self, teachers: Sequence[int]) -> RowBatches:
        names = [self.teachers[number] for number in teachers]
        for indices in evaluation_batches(self.train, BATCH_SIZE, rank=0, world_size=1):
            yield self.train.features_of(indices, names), self.train.labels[indices]

    @torch.no_grad()
    def student_rows(self) -> RowBatches:
        self.student.to(self.device).eval()
        for indices in evaluation_batches(self.train, BATCH_SIZE, rank=0, world_size=1):
            batch = self.train.batch(indices, (), self.device)
            features = self.reads.read(self.student(batch.inputs)[1])
            assert isinstance(features, torch.Tensor), "methods that multiply towers do not ask"
            yield features.float().cpu().numpy(), self.train.labels[indices]
        self.student.train()

    def train_features(self) -> np.ndarray:
        return _features(self.train, self.teachers)

    def validation_features(self) -> np.ndarray | None:
        return None if self.validation is None else _features(self.validation, self.teachers)

    def kept(
        self,
        folder: str,
        teachers: Sequence[int],
        make: Callable[[], dict[str, torch.Tensor]],
        *,
        with_labels: bool = False,
    ) -> dict[str, torch.Tensor]:
        if self.workspace is None:
            return make()
        names = [self.teachers[number] for number in teachers]
        features = {name: self.made_of["teachers"].get(name) for name in names}
        labels = [hashlib.sha256(self.train.labels.tobytes()).hexdigest()] if with_labels else []
        file = f"{fingerprint([[self.made_of['samples'], features], names, *labels])}.safetensors"
        place = self.workspace / folder
        with lease(place, file):
            if place.has(file):
                return read_tensors(place, file, "Delete it: it is computed again.")
            tensors = make()
            place.write(file, safetensors.torch.save(tensors))
            return tensors


def _features(split: Samples, teachers: Sequence[str]) -> np.ndarray:
    """(N, T) float32, all in memory at once."""
    blocks = [split.features_of(i, teachers) for i in evaluation_batches(split, BATCH_SIZE, rank=0, world_size=1)]
    return np.concatenate(blocks, dtype=np.float32)
