"""Optimizer, learning-rate schedule, clipping, fp16 scaling and the average of the weights."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from aft_ray.models.students import Student
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TrainConfig
from aft_ray.training.averages import Averages
from aft_ray.training.task import TransferTask

BLOCK = re.compile(r"\.(\d+)\.")
"""The number of a block in a parameter's name, such as `blocks.11.attn.qkv.weight`."""
STABLE = 0.8
"""Share of the steps after which `warmup_stable_decay` decays."""


class Optimisation:
    """`start(step)`, then gradients of `scaler.scale(loss)`, then `step()`."""

    def __init__(self, task: TransferTask, recipe: Recipe, device: torch.device) -> None:
        self.settings = recipe.train
        self.optimizer = build_optimizer(task, recipe)
        self.num_below_head = max(0, len(self.optimizer.param_groups) - 2)
        self.student = [weight for group in self.optimizer.param_groups[:-1] for weight in group["params"]]
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.train.precision == "fp16")
        self.averages = Averages(task.student, recipe.train.ema) if recipe.train.ema else None
        self.now = 0

    def start(self, step: int) -> None:
        """Sets the learning rates of step `step` and forgets the gradients."""
        self.now = step
        factor = learning_rate_factor(step, self.settings)
        frozen = step < self.settings.frozen_steps
        for number, group in enumerate(self.optimizer.param_groups):
            group["lr"] = 0.0 if frozen and number < self.num_below_head else group["peak_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> torch.Tensor:
        """Changes all weights; returns the norm of the student's gradient, as it was before it was clipped."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in self.student if weight.grad is not None])
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.student, self.settings.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averages:
            self.averages.update(self.now)
        return norm

    def regularizer_step(self) -> None:
        """Updates the weights that have a gradient and clears it; gradients of the regularizer's own steps are not scaled."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Inside, the student has the weights to evaluate and keep: with `train.ema` the averages."""
        if self.averages is None:
            yield
            return
        self.averages.swap()
        try:
            yield
        finally:
            self.averages.swap()

    def state_dict(self) -> dict[str, Any]:
        """A copy on the CPU, which the next step leaves alone."""
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        if self.averages:
            state["averages"] = self.averages.values
        return _on_cpu(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averages:
            self.averages.load(state["averages"])


def build_optimizer(task: TransferTask, recipe: Recipe) -> torch.optim.Optimizer:
    """Groups of the student by their learning rate; last the regularizer with its own rate and no weight decay."""
    settings = recipe.train
    groups = [
        *_student_groups(task.student, settings),
        {
            "params": task.own_parameters(),
            "peak_lr": recipe.regularizer.learning_rate,
            "weight_decay": 0.0,
        },
    ]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    options = {"momentum": 0.9} if settings.optimizer == "sgd" else {}
    kind = _without_compiler(kinds[settings.optimizer])
    return kind(groups, lr=0.0, weight_decay=settings.weight_decay, fused=True, **options)


@cache
def _without_compiler(kind: type[Any]) -> type[Any]:
    """The same optimizer. torch hides these methods from its compiler, and so the first call imports it, for two seconds."""
    hidden = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    own = {name: inspect.unwrap(getattr(kind, name)) for name in hidden}
    return type(kind.__name__, (kind,), {**own, "step": torch.no_grad()(own["step"])})


def _student_groups(student: Student, settings: TrainConfig) -> list[dict[str, Any]]:
    """One group where all weights learn alike; else one for each depth, and last the head's."""
    if settings.head_learning_rate is None and settings.layer_decay == 1 and not settings.frozen_steps:
        return [{"params": list(student.parameters()), "peak_lr": settings.learning_rate}]
    depths = layer_depths(student)
    if len(depths) == sum(1 for _ in student.named_parameters()):
        raise InputError(
            "train.head_learning_rate, layer_decay and frozen_steps tell a student's last layer by its name, `head`; this"
            " student has none."
        )
    top = max(depths.values(), default=0)
    groups: dict[int, list[torch.nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        groups.setdefault(depths.get(name, top + 1), []).append(parameter)
    return [{"params": weights, "peak_lr": _peak(depth, top, settings)} for depth, weights in sorted(groups.items())]


def _peak(depth: int, top: int, settings: TrainConfig) -> float:
    if depth > top:
        return settings.head_learning_rate or settings.learning_rate
    return settings.learning_rate * settings.layer_decay ** (top - depth)


def layer_depths(student: Student) -> dict[str, int]:
    """Names of the parameters below the student's last layer, `head`, and their depth: 0 before the first block, 1 in it, ...

    A block is an entry of the model's longest list of modules. Layers after the last block have its depth.
    """
    names = [name for name, _ in student.named_parameters() if not name.startswith("head.")]
    lists: dict[str, set[int]] = {}
    for name in names:
        for found in BLOCK.finditer(name):
            lists.setdefault(name[: found.start()], set()).add(int(found[1]))
    longest = max(lists, key=lambda place: len(lists[place]), default=None)
    depths, deepest = {}, 0
    for name in names:
        if longest is not None and name.startswith(f"{longest}."):
            deepest = int(name.removeprefix(f"{longest}.").partition(".")[0]) + 1
        depths[name] = deepest
    return depths


def learning_rate_factor(step: int, settings: TrainConfig) -> float:
    """Linear warm-up to 1, then the named `schedule`; a function of the step alone."""
    warmup = settings.num_warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, settings.steps - warmup)
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if settings.schedule == "linear":
        return 1 - progress
    if settings.schedule == "warmup_stable_decay":
        return min(1.0, (1 - progress) / (1 - STABLE))
    return 1.0


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_cpu(inner) for key, inner in value.items()}
    return [_on_cpu(inner) for inner in value] if isinstance(value, list) else value
