"""Errors, and metrics as (sum, count) pairs: they add over batches and over workers, so every sample counts exactly once.

Short steps leave a GPU waiting for instructions, so `StepMeans` adds up the reported values of many steps at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from aft_ray.regularizers.distributed import sum_over_workers
from aft_ray.store.schema import UNLABELED

FOLD = 50
"""Steps whose values `StepMeans` adds up at once."""


def task_errors(
    task: str,
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum, in float32, and number of the errors of (b, C) logits where there is a label.

    class_weights: (C,) float32 for classification; each row counts with the weight of its class in sum and number.

    classification: cross-entropy of each labelled row. multilabel: binary cross-entropy, and regression: squared
    difference, of each of the (b, C) labels that is not NaN.
    """
    logits = logits.float()
    if task == "classification":
        total = cross_entropy(
            logits,
            labels,
            weight=class_weights,
            ignore_index=UNLABELED,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
        there = labels != UNLABELED
        return total, there.sum() if class_weights is None else class_weights[labels[there]].sum()
    there = ~labels.isnan()
    targets = labels.nan_to_num()
    if task == "multilabel":
        errors = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    else:
        errors = (logits - targets).square()
    return errors.where(there, 0.0).sum(), there.sum()


@dataclass
class Metrics:
    """Running sums by name. `add` keeps them on the device; only `result` reads them."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    counts: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, name: str, total: torch.Tensor, count: torch.Tensor | int) -> None:
        """Adds `count` values, whose sum is `total`."""
        sums = total.detach().double()
        self.sums[name] = self.sums.get(name, torch.zeros_like(sums)) + sums
        self.counts[name] = self.counts.get(name, torch.zeros_like(sums)) + count

    def add_task(self, task: str, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds `loss`, the mean error, and except for regression `accuracy`: per row for one class, per label for several."""
        self.add("loss", *task_errors(task, logits, labels))
        if task == "classification":
            there = labels != UNLABELED
            self.add("accuracy", ((logits.argmax(1) == labels) & there).sum(), there.sum())
        elif task == "multilabel":
            there = ~labels.isnan()
            self.add("accuracy", (((logits > 0) == (labels > 0.5)) & there).sum(), there.sum())

    def result(self, prefix: str = "") -> dict[str, float | None]:
        """Means over this worker's batches; None where nothing was counted, as on a split without labels."""
        counts = {name: float(self.counts[name]) for name in sorted(self.sums)}
        return {prefix + name: float(self.sums[name]) / count if count else None for name, count in counts.items()}

    def reduced(self) -> Metrics:
        """The sums over all workers. Every worker must call it, with the same names."""
        names = sorted(self.sums)
        if not names:
            return self
        pairs = sum_over_workers(torch.stack([torch.stack([self.sums[n], self.counts[n]]) for n in names]))
        return Metrics({n: pairs[i, 0] for i, n in enumerate(names)}, {n: pairs[i, 1] for i, n in enumerate(names)})


class StepMeans:
    """Means over steps of scalars that each step leaves on the device. The first step's names count.

    Infinity and NaN are left out: where fp16 overflows, `grad_norm` is infinite and the step is skipped.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.waiting: list[torch.Tensor] = []
        self.sums: torch.Tensor | float = 0.0
        self.counts: torch.Tensor | int = 0
        self.num_steps = 0

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        self.names = self.names or tuple(values)
        self.waiting += [values[name].detach() for name in self.names]
        self.num_steps += 1
        if self.num_steps % FOLD == 0:
            self._fold()

    def result(self) -> dict[str, float | None]:
        """None where no step has a number. Waits until the device is done with the steps."""
        self._fold()
        assert isinstance(self.sums, torch.Tensor)
        means = (self.sums / self.counts).tolist()
        return {name: None if math.isnan(mean) else mean for name, mean in zip(self.names, means, strict=True)}

    def _fold(self) -> None:
        if self.waiting:
            values = torch.stack(self.waiting).double().view(-1, len(self.names))
            is_finite = values.isfinite()
            self.sums = self.sums + values.where(is_finite, 0.0).sum(0)
            self.counts = self.counts + is_finite.sum(0)
            self.waiting = []
