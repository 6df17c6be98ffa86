"""The setting of a case, and the same made data for all trainers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aft_ray.recipe.config import Recipe
from aft_ray.regularizers.base import Scope
from aft_ray.training.inputs.batches import Split
from aft_ray.training.inputs.data import Data

TEACHER_DIM = 3072


@dataclass(frozen=True)
class Setting:
    """A timed training. dim: width of the stored features. image: pixels per side."""

    student: str
    image: int
    batch: int
    steps: int
    samples: int
    method: str = "aft"
    workers: int = 1
    scope: Scope = "global"
    dim: int = TEACHER_DIM
    teacher: str = ""
    device: str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True)
class Measured:
    """samples_per_s: after the first interval. memory_mib: largest resident set of a worker."""

    samples_per_s: float
    memory_mib: float
    input_wait: float | None = None
    first_step_s: float | None = None


def made_data(setting: Setting) -> Data:
    random = np.random.default_rng(0)

    def split(size: int) -> Split:
        return Split(
            sample_ids=np.array([f"s{index}" for index in range(size)]),
            labels=random.integers(0, 10, size),
            inputs=random.integers(0, 255, (size, setting.image, setting.image, 3), np.uint8),
            features={"teacher": random.normal(size=(size, setting.dim)).astype(np.float16)},
            classes=tuple("abcdefghij"),
        )

    return Data(split(setting.samples), split(64), split(64))


def recipe(setting: Setting, workspace: str = "unused") -> Recipe:
    """Four evaluations: one to warm up, three to measure."""
    scope = {"scope": setting.scope} if setting.method == "aft" else {}
    return Recipe.model_validate(
        {
            "workspace": workspace,
            "dataset": {"name": "mnist5k"},
            "teachers": [{"name": "teacher", "model": "timm:teacher"}],
            "student": {"model": setting.student, "image_size": setting.image},
            "regularizer": {"name": setting.method, **scope},
            "train": {
                "steps": 4 * setting.steps,
                "evaluate_every": setting.steps,
                "global_batch_size": setting.batch,
                "num_workers": setting.workers,
                "streaming": False,
                "use_gpu": setting.device == "cuda",
                "precision": setting.precision,
            },
        }
    )
