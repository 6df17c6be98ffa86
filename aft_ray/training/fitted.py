"""What two baselines need from the data before training: factor transfer its autoencoder, B-Tuning its LogME heads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import safetensors.torch
import torch

from aft_ray.cluster.lease import lease
from aft_ray.models.students import Student
from aft_ray.recipe.config import fingerprint
from aft_ray.regularizers import FeatureEncoder, LogMEStatistics, btune_options, fit_encoder
from aft_ray.store.files import Directory
from aft_ray.training.inputs.batches import Samples, evaluation_batches

BATCH_SIZE = 512
HELD_OUT = 10


def fitted_options(
    method: str,
    student: Student,
    train: Samples,
    validation: Samples | None,
    teachers: Sequence[str],
    device: torch.device,
    *,
    weights_follow: bool,
    kept: Directory | None = None,
    identity: Any = None,
) -> dict[str, Any]:
    """Options of `build_regularizer` that come from the data: empty for every method but `ft` and `btune`.

    The autoencoder stops early on validation, or where there is none on every tenth train sample. weights_follow: a
    checkpoint will be loaded over the result, so only its shapes count. kept: where autoencoders of the same `identity` of
    samples and features are kept for others, None for nowhere. Every worker has the same; DDP then sends out those of the
    main worker.
    """
    if method == "ft":
        with torch.random.fork_rng(devices=[]):  # what follows draws the same numbers, whoever has trained the encoder
            encoder = FeatureEncoder([train.feature_dims[name] for name in teachers])
        if not weights_follow:
            encoder.load_state_dict(_encoder_weights(train, validation, teachers, device, kept, identity))
        return {"encoder": encoder}
    if method == "btune":
        of_teachers = [LogMEStatistics(train.feature_dims[name], len(train.classes)) for name in teachers]
        for indices in evaluation_batches(train, BATCH_SIZE, rank=0, world_size=1):
            for name, statistics in zip(teachers, of_teachers, strict=True):
                statistics.update(train.features_of(indices, [name]), train.labels[indices])
        return btune_options(_student_statistics(student, train, device), of_teachers)
    return {}


def _encoder_weights(
    train: Samples,
    validation: Samples | None,
    teachers: Sequence[str],
    device: torch.device,
    kept: Directory | None,
    identity: Any,
) -> dict[str, torch.Tensor]:
    """Read if another run has kept them: the training takes longer than many a student's."""
    file = f"{fingerprint([identity, teachers])}.safetensors"
    with lease(kept, file) if kept else nullcontext():
        if kept and kept.has(file):
            return safetensors.torch.load(kept.read(file))
        own = _features(train, teachers)
        held_out = own[::HELD_OUT] if validation is None else _features(validation, teachers)
        own = np.delete(own, np.s_[::HELD_OUT], axis=0) if validation is None else own
        dims = [train.feature_dims[name] for name in teachers]
        weights = fit_encoder(own, held_out, dims, device=device).cpu().state_dict()
        if kept:
            kept.write(file, safetensors.torch.save(weights))
        return weights


def _features(split: Samples, teachers: Sequence[str]) -> np.ndarray:
    """(N, T) float32, all in memory at once."""
    blocks = [split.features_of(i, teachers) for i in evaluation_batches(split, BATCH_SIZE, rank=0, world_size=1)]
    return np.concatenate(blocks, dtype=np.float32)


@torch.no_grad()
def _student_statistics(student: Student, train: Samples, device: torch.device) -> LogMEStatistics:
    """LogME's sums over the features that the student has before training."""
    assert isinstance(student.feature_dim, int), "check refuses two towers"
    statistics = LogMEStatistics(student.feature_dim, len(train.classes))
    student.to(device).eval()
    for indices in evaluation_batches(train, BATCH_SIZE, rank=0, world_size=1):
        batch = train.batch(indices, (), device)
        statistics.update(student(batch.inputs)[1].float().cpu().numpy(), train.labels[indices])
    student.train()
    return statistics
