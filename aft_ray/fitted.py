"""What two baselines need from the data before training: factor transfer its autoencoder, B-Tuning its LogME heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from aft_ray.batches import Split, evaluation_batches
from aft_ray.regularizers import FeatureEncoder, LogMEStatistics, btune_options, fit_encoder
from aft_ray.students import Student

BATCH_SIZE = 512


def fitted_options(
    method: str,
    student: Student,
    train: Split,
    validation: Split,
    teachers: Sequence[str],
    device: torch.device,
    *,
    weights_follow: bool,
) -> dict[str, Any]:
    """Options of `build_regularizer` that come from the data: empty for every method but `ft` and `btune`.

    The autoencoder stops early on validation, never on test. weights_follow: a checkpoint will be loaded over the result,
    so only its shapes count. Every worker computes the same; DDP then sends out those of the main worker.
    """
    if method == "ft":
        dims = [train.features[name].shape[1] for name in teachers]
        if weights_follow:
            return {"encoder": FeatureEncoder(dims)}
        own, held_out = (
            np.concatenate([s.features[t] for t in teachers], 1, dtype=np.float32) for s in (train, validation)
        )
        return {"encoder": fit_encoder(own, held_out, dims, device=device)}
    if method == "btune":
        of_teachers = []
        for name in teachers:
            of_teachers.append(LogMEStatistics(train.features[name].shape[1], len(train.classes)))
            of_teachers[-1].update(train.features[name], train.labels)
        return btune_options(_student_statistics(student, train, device), of_teachers)
    return {}


@torch.no_grad()
def _student_statistics(student: Student, train: Split, device: torch.device) -> LogMEStatistics:
    """LogME's sums over the features that the student has before training."""
    statistics = LogMEStatistics(student.feature_dim, len(train.classes))
    student.to(device).eval()
    for indices in evaluation_batches(train, BATCH_SIZE, rank=0, world_size=1):
        batch = train.batch(indices, (), device)
        statistics.update(student(batch.inputs)[1].float().cpu().numpy(), train.labels[indices])
    student.train()
    return statistics
