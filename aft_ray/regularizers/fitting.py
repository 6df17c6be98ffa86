"""The data that a method may fit its options to before training: the run's own in training, made-up rows in checks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

RowBatches: TypeAlias = Iterator[tuple[np.ndarray, np.ndarray]]
"""Features (n, D) of any floating type and labels, some rows at a time: (n,) integers, -1 for none, or (n, C), NaN for none."""


class FittingData(Protocol):
    """The train split as training sees it, its teachers' features, and the student as it is before training."""

    @property
    def task(self) -> str:
        """``classification``, ``multilabel`` or ``regression``."""

    @property
    def num_outputs(self) -> int:
        """C, the student's logits."""

    @property
    def student_dim(self) -> int:
        """Width of the features that the method compares with the teachers'; where towers are multiplied it has none."""

    @property
    def teacher_dims(self) -> Sequence[int]: ...

    @property
    def towers(self) -> Sequence[int] | None:
        """The number of each teacher's tower, where the features of the student's towers are multiplied; else None."""

    @property
    def device(self) -> torch.device | str: ...

    @property
    def weights_follow(self) -> bool:
        """Whether a checkpoint will overwrite the regularizer's tensors, so that only their shapes count."""

    def teacher_rows(self, teachers: Sequence[int]) -> RowBatches:
        """One pass over all train rows, with the features of ``teachers`` side by side."""

    def student_rows(self) -> RowBatches:
        """One pass over all train rows, with the student's features."""

    def train_features(self) -> np.ndarray:
        """All teachers' features (N, T) of the train split, in memory as a whole."""

    def validation_features(self) -> np.ndarray | None:
        """The same of the validation split, where there is one."""

    def kept(
        self, folder: str, teachers: Sequence[int], make: Callable[[], dict[str, Tensor]], *, with_labels: bool = False
    ) -> dict[str, Tensor]:
        """The tensors that ``make`` returns; from the workspace's ``folder`` if another run has made them.

        They depend on the features of ``teachers``, and with ``with_labels`` on the labels that training keeps.
        """


class MadeUpData:
    """A few rows with features that tell the labels: enough to build and check a method without any data."""

    num_outputs = 2
    student_dim = 2
    device = "cpu"
    weights_follow = True

    def __init__(self, num_teachers: int, *, task: str = "classification", towers: Sequence[int] | None = None) -> None:
        self.task, self.towers = task, towers
        self.teacher_dims = (2,) * num_teachers

    def teacher_rows(self, teachers: Sequence[int]) -> RowBatches:
        labels = np.arange(20) % 2
        features = np.random.default_rng(0).normal(size=(20, 2 * len(teachers))) + 9 * labels[:, None]
        yield features, labels if self.task == "classification" else np.eye(2)[labels]

    def student_rows(self) -> RowBatches:
        return self.teacher_rows([0])

    def train_features(self) -> np.ndarray:
        return next(self.teacher_rows(range(len(self.teacher_dims))))[0]

    def validation_features(self) -> np.ndarray | None:
        return None

    def kept(
        self, folder: str, teachers: Sequence[int], make: Callable[[], dict[str, Tensor]], **_: Any
    ) -> dict[str, Tensor]:
        return make()
