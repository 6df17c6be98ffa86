"""Classes of a user's own that fail in the ways that users' classes do: `tests.helpers.broken_parts:Raises`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aft_ray.datasets.base import Item, Listing
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.regularizers import Regularizer
from tests.helpers.own_students import Patches
from tests.helpers.own_teachers import Means


class Raises(Means):
    """Fails at its first batch."""

    def __call__(self, inputs: Any) -> torch.Tensor:
        return self.options["layer"]  # the line that is named


class RaisesInInit(Means):
    def __init__(self, config: Any, device: Any) -> None:
        raise RuntimeError("no licence")


class RaisesInDescribe(Means):
    @classmethod
    def describe(cls, config: Any) -> Any:
        return config.options["missing"]


class Unserialisable(Means):
    @classmethod
    def describe(cls, config: Any) -> TeacherDescription:
        return TeacherDescription("image", super().describe(config).transform, {"weights": {1, 2}})


class NoWidth(Means):
    def __init__(self, config: Any, device: Any) -> None:
        """Forgets feature_dim."""


class Gives(Means):
    """Gives what its option says."""

    def __call__(self, inputs: Any) -> Any:
        rows = len(inputs)
        return {
            "numpy": np.ones((rows, 192), np.float32),
            "narrow": torch.ones(rows, 3),
            "short": torch.ones(rows - 1, 192),
            "flat": torch.ones(rows * 192),
            "whole numbers": torch.ones(rows, 192, dtype=torch.long),
            "none": None,
            "pair": (torch.ones(rows, 192), 1),
        }[self.options["gives"]]


class RaisingStudent(Patches):
    lost: Any = None

    def run(self, *prepared: Any) -> Any:
        return self.head(self.lost.layer(*prepared))


class LateStudent(Patches):
    """Fails in training only."""

    def run(self, *prepared: Any) -> Any:
        if self.training:
            raise KeyError("schedule")
        return super().run(*prepared)


class LogitsAlone(Patches):
    def run(self, *prepared: Any) -> Any:
        return super().run(*prepared)[0]


class RaisingRegularizer(Regularizer):
    title, betas = "raising", (1.0, 2.0, 3.0, 4.0)

    def _value(self, student: Any, teacher_bT: Any, rows: Any) -> Any:
        return rows.mean_loss(student[0] @ teacher_bT)


class RaisingSource:
    @staticmethod
    def list_samples(config: Any) -> Listing:
        return config.options["table"]


class Nothing:
    @staticmethod
    def list_samples(config: Any) -> Any:
        return []


class RaisingReader:
    """Its samples cannot be read, by a mistake of its own."""

    @staticmethod
    def list_samples(config: Any) -> Listing:
        items = tuple(Item(f"s{number}", number % 2) for number in range(40))
        return Listing("image", ("a", "b"), items, lambda index: config.missing)
