"""Optimizer, learning-rate schedule, clipping and fp16 scaling."""

from __future__ import annotations

import math
from typing import Any

import torch

from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import TrainConfig
from aft_ray.training.task import TransferTask


class Optimisation:
    """`start(step)`, then gradients of `scaler.scale(loss)`, then `step()`."""

    def __init__(self, task: TransferTask, recipe: Recipe, device: torch.device) -> None:
        self.settings = recipe.train
        self.optimizer = build_optimizer(task, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.train.precision == "fp16")

    def start(self, step: int) -> None:
        """Sets the learning rates of step `step` and forgets the gradients."""
        factor = learning_rate_factor(step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> torch.Tensor:
        """Changes all weights; returns the norm of the student's gradient, as it was before it was clipped."""
        self.scaler.unscale_(self.optimizer)
        student = self.optimizer.param_groups[0]["params"]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in student if weight.grad is not None])
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(student, self.settings.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm

    def regularizer_step(self) -> None:
        """Updates the weights that have a gradient and clears it; gradients of the regularizer's own steps are not scaled."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """A copy on the CPU, which the next step leaves alone."""
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        return _on_cpu(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def build_optimizer(task: TransferTask, recipe: Recipe) -> torch.optim.Optimizer:
    """Two groups: the student, and the regularizer with its own learning rate and no weight decay."""
    settings = recipe.train
    groups = [
        {"params": list(task.student.parameters()), "peak_lr": settings.learning_rate},
        {"params": task.own_parameters(), "peak_lr": recipe.regularizer.learning_rate, "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=settings.weight_decay, fused=True)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=0.0, weight_decay=settings.weight_decay, fused=True)


def learning_rate_factor(step: int, settings: TrainConfig) -> float:
    """Linear warm-up to 1, then a cosine to 0 at the last step; a function of the step alone."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_cpu(inner) for key, inner in value.items()}
    return [_on_cpu(inner) for inner in value] if isinstance(value, list) else value
