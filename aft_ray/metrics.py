"""Metrics as (sum, count) pairs: they add over batches and over workers, so every sample counts exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.nn.functional import cross_entropy

from aft_ray.distributed import sum_over_workers
from aft_ray.schema import UNLABELED


@dataclass
class Metrics:
    """Running sums by name. `add` keeps them on the device; only `result` reads them."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    counts: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, name: str, total: torch.Tensor, count: torch.Tensor | int) -> None:
        """`total` is the sum of `count` values."""
        sums = total.detach().double()
        self.sums[name] = self.sums.get(name, torch.zeros_like(sums)) + sums
        self.counts[name] = self.counts.get(name, torch.zeros_like(sums)) + count

    def add_means(self, means: Mapping[str, torch.Tensor]) -> None:
        """Values that are already means over the global batch, one per step."""
        for name, mean in means.items():
            self.add(name, mean, 1)

    def add_classification(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """`accuracy` and `loss` (cross-entropy) of (b, C) logits for the rows that have a label."""
        labeled = labels != UNLABELED
        correct = (logits.argmax(1) == labels) & labeled
        self.add("accuracy", correct.sum(), labeled.sum())
        loss = cross_entropy(logits.float(), labels, ignore_index=UNLABELED, reduction="sum")
        self.add("loss", loss, labeled.sum())

    def result(self, prefix: str = "") -> dict[str, float]:
        """Means over this worker's batches."""
        return {prefix + name: float(self.sums[name] / self.counts[name]) for name in sorted(self.sums)}

    def reduced(self) -> Metrics:
        """The same over all workers. Every worker must call it, with the same names."""
        names = sorted(self.sums)
        if not names:
            return self
        pairs = sum_over_workers(torch.stack([torch.stack([self.sums[n], self.counts[n]]) for n in names]))
        return Metrics({n: pairs[i, 0] for i, n in enumerate(names)}, {n: pairs[i, 1] for i, n in enumerate(names)})
