"""The one forward that DDP wraps: student, task loss and regularizer together."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import nn

from aft_ray.models.students import Student
from aft_ray.regularizers import Regularizer
from aft_ray.regularizers.distributed import begin_sum_of_losses
from aft_ray.training.inputs.batch import Batch
from aft_ray.training.metrics import task_errors
from aft_ray.training.towers import Towers

Inputs: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]
Features: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TransferTask(nn.Module):
    """loss = task_loss + beta * regularization (arXiv 2406.07337, section 3).

    Everything trainable runs inside `forward`, because DDP averages only the gradients that arise there. All values
    belong to the global batch: each worker's backward gives `world_size` times its share of the gradient, which
    DDP's average over workers makes exact (see `distributed`).
    """

    def __init__(
        self,
        student: Student,
        regularizer: Regularizer,
        beta: float,
        *,
        teachers: Sequence[str] = (),
        towers: Towers | None = None,
        facts: Mapping[str, float] | None = None,
        kind: str = "classification",
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
        precision: str = "fp32",
    ) -> None:
        """teachers: names of the teachers whose features the regularizer reads. towers: which of the student's features it
        reads. facts: numbers fitted before training. kind: a schema.Task. class_weights: (C,), for classification. precision: of
        the student; the losses are always float32.
        """
        super().__init__()
        self.student = student
        self.regularizer = regularizer
        self.beta = beta
        self.teachers = tuple(teachers)
        self.towers = towers or Towers()
        self.facts = dict(facts or {})
        self.kind = kind
        self.label_smoothing = label_smoothing
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.dtype = AUTOCAST[precision]

    def forward(self, batch: Batch, gradients: Sequence[torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """Scalars `loss`, `task_loss` and `regularization` of the global batch; `batch` has this worker's rows.

        The task loss is the mean over the rows that have a label; the regularizer sees all rows.
        gradients: the known gradients of the loss with respect to logits and features of these rows, perhaps followed by
        the regularizer's parameters. The result is then a `loss` alone, with exactly these gradients.
        """
        logits, features = self.run_student(batch.inputs)
        if gradients is None:
            return self.losses(logits, features, batch)
        values = (*flat(logits, features), *self.own_parameters())
        return {"loss": torch.stack([(v.float() * g).sum() for v, g in zip(values, gradients, strict=False)]).sum()}

    def run_student(self, inputs: Inputs) -> tuple[torch.Tensor, Features]:
        """Logits and features in the recipe's precision."""
        if self.dtype is None:
            return self.student(inputs)
        with _autocast((inputs[0] if isinstance(inputs, tuple) else inputs).device.type, self.dtype):
            return self.student(inputs)

    def losses(self, logits: torch.Tensor, features: Features, batch: Batch) -> dict[str, torch.Tensor]:
        """The result of `forward`, from the student's outputs."""
        errors, count = task_errors(
            self.kind,
            logits,
            batch.labels,
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights,
        )
        over_workers = begin_sum_of_losses(errors, count)
        regularization = self.regularization(logits, features, batch)
        error_sum, num_labeled = over_workers()
        task_loss = error_sum / torch.where(num_labeled > 0, num_labeled, 1)  # a sum of class weights may be below 1
        return {
            "loss": torch.add(task_loss, regularization, alpha=self.beta),
            "task_loss": task_loss,
            "regularization": regularization,
        }

    def regularization(self, logits: torch.Tensor, features: Features, batch: Batch) -> torch.Tensor:
        """The unweighted regularizer."""
        value: torch.Tensor = self.regularizer(self.towers.read(features), batch.teacher_features, logits)
        return value

    def own_parameters(self) -> list[nn.Parameter]:
        """The trained parameters of the regularizer."""
        return [parameter for parameter in self.regularizer.parameters() if parameter.requires_grad]


@functools.cache
def _autocast(device_type: str, dtype: torch.dtype) -> torch.autocast:
    """Cached: making one asks the driver for GPUs."""
    return torch.autocast(device_type, dtype=dtype)


def flat(logits: torch.Tensor, features: Features) -> tuple[torch.Tensor, ...]:
    """The student's outputs, one after another."""
    return (logits, *features) if isinstance(features, tuple) else (logits, features)
