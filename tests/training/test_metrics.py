from __future__ import annotations

import pytest
import torch

from aft_ray.store.schema import UNLABELED
from aft_ray.training.metrics import FOLD, Metrics, StepMeans


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


@pytest.mark.parametrize("num_steps", [1, FOLD, 2 * FOLD + 3])
def test_steps_are_averaged(num_steps: int) -> None:
    means, numbers = StepMeans(), torch.randn(num_steps, 2, generator=torch.Generator().manual_seed(0))
    for loss, norm in numbers:
        means.add({"loss": loss.clone().requires_grad_(), "norm": norm})
    assert means.result() == pytest.approx(dict(zip(("loss", "norm"), numbers.double().mean(0).tolist(), strict=True)))
    assert not means.waiting


def test_a_step_that_fp16_skips_has_no_norm() -> None:
    means = StepMeans()
    for norm in (float("inf"), 2.0, float("nan"), 4.0):
        means.add({"loss": torch.tensor(0.5), "norm": torch.tensor(norm), "other": torch.tensor(float("inf"))})
    assert means.result() == {"loss": 0.5, "norm": 3.0, "other": None}
