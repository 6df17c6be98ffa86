"""probe_kd: soft targets of the teachers' probes for the student's logits, for every kind of label."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from aft_ray.regularizers import Regularizer, build_regularizer, ridge_probe
from tests.helpers.probes import made_probes

DIMS = [10, 9]


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(probes: Any, dims: list[int] = DIMS, **options: Any) -> Regularizer:
    return build_regularizer("probe_kd", student_dim=6, teacher_dims=dims, probes=probes, **options).double()


def soft_targets(probes: Any, teacher: Tensor) -> Tensor:
    parts = zip(probes, teacher.split([len(probe.mean) for probe in probes], 1), strict=True)
    predicted = sum(probe.r2 * torch.tensor(probe.predict(part.numpy())) for probe, part in parts)
    return predicted / sum(probe.r2 for probe in probes) + torch.tensor(probes[0].prior)


def test_classes_are_a_cross_entropy_with_clipped_normalised_targets() -> None:
    probes, teacher, logits = made_probes(DIMS), features(0, 30, 19), features(1, 30, 5)
    targets = soft_targets(probes, teacher).clamp_min(0.01)
    expected = cross_entropy(logits, targets / targets.sum(1, keepdim=True))
    value = build(probes)(features(2, 30, 6), teacher, logits)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)


def test_many_classes_do_not_share_what_is_clipped() -> None:
    (probe,) = made_probes([40], num_outputs=30)
    teacher, logits = torch.zeros(1, 40, dtype=torch.float64), torch.zeros(1, 30, dtype=torch.float64)
    teacher[0] = torch.tensor(np.linalg.pinv(probe.weights / probe.scale)[3] * 5 + probe.mean)
    logits[0, 3] = 20.0  # all probability on one class: what is left of the value is what the target gives to others
    assert build([probe], [40])(features(2, 1, 6), teacher, logits) < 20 * 0.15


def test_several_labels_are_a_binary_cross_entropy() -> None:
    numbers = np.random.default_rng(0).normal(size=(60, 10))
    probe = ridge_probe(numbers, (numbers[:, :3] > 0).astype(float))
    teacher, logits = features(0, 30, 10), features(1, 30, 3)
    expected = binary_cross_entropy_with_logits(logits, soft_targets([probe], teacher).clamp(0.01, 0.99))
    value = build([probe], [10], task="multilabel")(features(2, 30, 6), teacher, logits)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)


def test_numbers_are_a_squared_difference() -> None:
    numbers = np.random.default_rng(0).normal(size=(60, 10))
    probe = ridge_probe(numbers, 3 * numbers[:, :2] + 100)
    teacher, logits = features(0, 30, 10), features(1, 30, 2) + 100
    expected = (logits - soft_targets([probe], teacher)).square().mean()
    value = build([probe], [10], task="regression")(features(2, 30, 6), teacher, logits)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)


def test_teachers_that_know_nothing_do_not_count() -> None:
    probes, teacher, logits = made_probes(DIMS, noise=[0]), features(0, 30, 19), features(1, 30, 5)
    alone = build(probes[1:], DIMS[1:])(features(2, 30, 6), teacher[:, 10:], logits)
    torch.testing.assert_close(build(probes)(features(2, 30, 6), teacher, logits), alone)
    off = build(made_probes(DIMS, noise=[0, 1]))
    assert off.is_off and off(features(2, 30, 6), teacher, logits) == 0


def test_helpful_errors() -> None:
    student, teacher = features(0, 4, 6), features(1, 4, 19)
    with pytest.raises(ValueError, match="Regularizer 'probe_kd' needs the student's logits as third argument."):
        build(made_probes(DIMS))(student, teacher)
    with pytest.raises(ValueError, match=r"logits must have shape \(rows, 5\), got \(4, 6\)\."):
        build(made_probes(DIMS))(student, teacher, features(2, 4, 6))
    with pytest.raises(
        ValueError, match=r"task must be one of classification, multilabel, regression, got 'ranking'\."
    ):
        build(made_probes(DIMS), task="ranking")
