"""Probes of made-up features, and logits for the methods that need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aft_ray.regularizers import Probe, Regularizer, ridge_probe
from aft_ray.regularizers.kernels import at_least_float32


def made_probes(dims: Sequence[int], num_outputs: int = 5, *, noise: Sequence[int] = ()) -> list[Probe]:
    """A probe of teachers of widths `dims` that know the classes, except those numbered in `noise`."""
    probes = []
    for number, dim in enumerate(dims):
        random, classes = np.random.default_rng(number), np.arange(60) % num_outputs
        features = random.normal(size=(60, dim))
        if number not in noise:
            features += 2 * random.normal(size=(num_outputs, dim))[classes]
        probes.append(ridge_probe(features, np.eye(num_outputs)[classes]))
    return probes


def with_logits(regularizer: Regularizer, num_outputs: int = 5) -> Regularizer:
    """The same, called without logits: they are a fixed map of the student features."""
    if not regularizer.needs_logits:
        return regularizer
    forward, dim = regularizer.forward, sum(regularizer.student_dims)
    head = torch.randn(dim, num_outputs, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def with_head(student: Tensor | tuple[Tensor, ...], teacher: Tensor) -> Tensor:
        parts = (student,) if isinstance(student, Tensor) else student
        with torch.autocast("cpu", enabled=False):
            features = at_least_float32(torch.cat(parts, 1))
            logits = features @ head.to(features)
        return forward(student, teacher, logits)

    with_head_: Any = with_head
    regularizer.forward = with_head_  # type: ignore[method-assign]
    return regularizer
