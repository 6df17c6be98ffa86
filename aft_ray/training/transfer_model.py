"""A model of another training loop with a regularizer beside its loss: for transformers' Trainer, Lightning, plain DDP.

    features = features_by_id("work/reviews", "train", ["minilm"])
    aft = build_regularizer("aft", student_dim=model.config.hidden_size, teacher_dims=features.teacher_dims)
    Trainer(TransferModel(model, aft, beta=10), data_collator=features.collator(own_collator), ...)

The regularizer lies inside the module that the loop wraps and optimizes, so its parameters are trained too. Under DDP its value
is the global batch's, as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from aft_ray.regularizers import Regularizer

FeaturesOf = Callable[[Any, Mapping[str, Any]], torch.Tensor]
"""(B, S) features of the student from its outputs and its inputs."""


def mean_of_tokens(outputs: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """(B, S): the mean of a transformers model's last hidden states over the tokens that are not padding."""
    hidden = outputs.hidden_states[-1]
    mask = inputs.get("attention_mask")
    if mask is None:
        return hidden.mean(1)
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


class TransferModel(nn.Module):
    """Calls `student` and adds `beta * regularization` to the `loss` of its outputs (arXiv 2406.07337, section 3).

    Outside of training, and for batches without `teacher_features`, the outputs are the student's alone.
    """

    def __init__(
        self,
        student: nn.Module,
        regularizer: Regularizer,
        beta: float,
        *,
        features_of: FeaturesOf = mean_of_tokens,
        asks: Mapping[str, Any] | None = None,
    ) -> None:
        """asks: arguments that make the student return what `features_of` reads; by default its hidden states."""
        super().__init__()
        self.student, self.regularizer, self.beta = student, regularizer, beta
        self.features_of = features_of
        self.asks = {"output_hidden_states": True} if asks is None else dict(asks)

    def forward(self, *, teacher_features: torch.Tensor | None = None, **inputs: Any) -> Any:
        """The student's outputs. teacher_features: (B, T) float32, the teachers side by side."""
        if teacher_features is None or not self.training:
            return self.student(**inputs)
        outputs = self.student(**inputs, **self.asks)
        features = self.features_of(outputs, inputs).float()
        regularization = self.regularizer(features, teacher_features, outputs["logits"].float())
        outputs["loss"] = outputs["loss"] + self.beta * regularization
        return outputs

    def parameter_groups(self, learning_rate: float, own_learning_rate: float = 0.01) -> list[dict[str, Any]]:
        """For an optimizer: the student, and the regularizer with its own rate and no weight decay, as in the paper's code."""
        return [
            {"params": list(self.student.parameters()), "lr": learning_rate},
            {"params": list(self.regularizer.parameters()), "lr": own_learning_rate, "weight_decay": 0.0},
        ]
