"""A teacher that knows nothing: random features, the same for the same picture, named `jobs.benchmarks.noise:Noise`.

A recipe that lists it shows whether `rank`, the gates and the search recognise a useless teacher. Commands that use it need
the repository's root on the path: `PYTHONPATH=. aft-ray rank ...`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.recipe.sections import TeacherConfig


class Noise:
    """Standard normal features, seeded by the pixels. Options: `dim`, how many (2048)."""

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        self.device = device
        self.feature_dim = int(config.options.get("dim", 2048))

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        return TeacherDescription("image", ImageTransform(32), {"distribution": "standard normal"})

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        seeds = (hashlib.sha256(picture.tobytes()).digest()[:8] for picture in np.asarray(inputs))
        rows = [np.random.default_rng(int.from_bytes(s, "little")).standard_normal(self.feature_dim) for s in seeds]
        return torch.from_numpy(np.array(rows, np.float32)).to(self.device)
