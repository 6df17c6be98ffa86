from __future__ import annotations

import pytest
import torch

from aft_ray.metrics import Metrics
from aft_ray.schema import UNLABELED


def test_batches_of_any_size_give_the_metrics_of_the_whole() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(23, 4), torch.randint(0, 4, (23,))
    whole, parts = Metrics(), Metrics()
    whole.add_task("classification", logits, labels)
    for start in range(0, 23, 6):
        parts.add_task("classification", logits[start : start + 6], labels[start : start + 6])
    expected = {
        "accuracy": (logits.argmax(1) == labels).double().mean().item(),
        "loss": torch.nn.functional.cross_entropy(logits, labels).item(),
    }
    assert whole.result() == pytest.approx(expected)
    assert parts.reduced().result("val_") == pytest.approx({f"val_{name}": value for name, value in expected.items()})


def test_rows_without_a_label_do_not_count() -> None:
    metrics = Metrics()
    metrics.add_task("classification", torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, UNLABELED]))
    assert metrics.result()["accuracy"] == 1.0


def test_steps_are_averaged() -> None:
    metrics = Metrics()
    for value in (1.0, 3.0):
        metrics.add_means({"loss": torch.tensor(value, requires_grad=True)})
    assert metrics.result() == {"loss": 2.0}
