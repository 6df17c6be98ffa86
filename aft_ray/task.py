"""The one forward that DDP wraps: student, task loss and regularizer together."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from aft_ray.distributed import sum_over_workers
from aft_ray.regularizers import Regularizer
from aft_ray.schema import UNLABELED, Batch
from aft_ray.students import Student


class TransferTask(nn.Module):
    """loss = task_loss + beta * regularization (arXiv 2406.07337, section 3).

    Everything trainable runs inside `forward`, because DDP averages only the gradients of what runs there. All values
    are those of the global batch: each worker's backward gives `world_size` times its share of the gradient, which
    DDP's average over workers makes exact (see `distributed`).
    """

    def __init__(self, student: Student, regularizer: Regularizer, beta: float) -> None:
        super().__init__()
        self.student = student
        self.regularizer = regularizer
        self.beta = beta

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Scalars `loss`, `task_loss` and `regularization` of the global batch of which `batch` has this worker's rows.

        The task loss is the mean cross-entropy over the rows that have a label; the regularizer sees all rows.
        """
        logits, features = self.student(batch.inputs)
        labeled = (batch.labels != UNLABELED).sum().to(torch.float32)
        errors = cross_entropy(logits.float(), batch.labels, ignore_index=UNLABELED, reduction="sum")
        task_loss = sum_over_workers(errors) / sum_over_workers(labeled).clamp(min=1)
        regularization = self.regularizer(features, batch.teacher_features)
        return {
            "loss": task_loss + self.beta * regularization,
            "task_loss": task_loss,
            "regularization": regularization,
        }
