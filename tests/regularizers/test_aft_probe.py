"""aft_probe: its formula, what the labels change in its target, and teachers that cannot harm."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from aft_ray.regularizers import Probe, build_regularizer, ridge_probe
from aft_ray.regularizers.aft_probe import AftProbe
from aft_ray.regularizers.distributed import Rows
from tests.helpers.probes import made_probes

DIMS = [10, 9]


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(probes: list[Probe], dims: list[int] = DIMS, student_dim: Any = 6, **options: Any) -> AftProbe:
    built = build_regularizer("aft_probe", student_dim=student_dim, teacher_dims=dims, probes=probes, **options)
    assert isinstance(built, AftProbe)
    return built.double()


def unit(x_BD: Tensor) -> Tensor:
    """Centred, and of a root-mean-square row norm of 1."""
    centred = x_BD - x_BD.mean(0)
    return centred / centred.square().sum(1).mean().sqrt()


def distance(student_BD: Tensor, target_BD: Tensor) -> Tensor:
    rows = [normalize(x - x.mean(0)) for x in (student_BD, target_BD)]
    return ((rows[0] @ rows[0].T - rows[1] @ rows[1].T).square().mean() + 1e-8).sqrt()


@pytest.mark.parametrize("raw_weight", [0.0, 0.5, 1.0])
def test_the_target_is_two_gated_blocks_of_each_teacher(raw_weight: float) -> None:
    student, teacher = features(0, 30, 6), features(1, 30, 19) + 3
    probes = made_probes(DIMS)
    blocks = []
    for probe, part in zip(probes, teacher.split(DIMS, 1), strict=True):
        gate = np.sqrt(probe.r2) / 2
        blocks += [raw_weight * gate * unit(part), gate * unit(torch.tensor(probe.predict(part.numpy())))]
    value = build(probes, raw_weight=raw_weight)(student, teacher)
    torch.testing.assert_close(value, distance(student, torch.cat(blocks, 1)), rtol=1e-5, atol=0)


def test_the_target_of_two_modalities_is_their_outer_product_beside_the_predictions() -> None:
    student, teacher = (features(0, 20, 3), features(1, 20, 4)), features(2, 20, 19) + 1
    (probe,) = made_probes([19])
    product = build([probe], student_dim=(3, 4), combine="product")
    with torch.no_grad():
        product.gate_logits.copy_(features(3, 19))
        product.probe_gate_logits.copy_(features(4, 5))
    ungated = [
        unit(part) + part.mean(0) / (part - part.mean(0)).square().sum(1).mean().sqrt()
        for part in teacher.split(DIMS, 1)
    ]
    gated = [x * gate for x, gate in zip(ungated, product.gate_logits.sigmoid().split(DIMS), strict=True)]
    outer_student, outer, outer_gated = (
        (a[:, :, None] * c[:, None, :]).flatten(1) for a, c in (student, ungated, gated)
    )
    spread = (outer - outer.mean(0)).square().sum(1).mean().sqrt()
    predicted = unit(torch.tensor(probe.predict(teacher.numpy()))) * product.probe_gate_logits.sigmoid()
    expected = distance(outer_student, torch.cat([0.5 * outer_gated / spread, predicted], 1))
    torch.testing.assert_close(product(student, teacher), expected, rtol=1e-5, atol=0)


def test_gates_start_at_half_the_root_of_r2() -> None:
    probes = made_probes(DIMS)
    scalars = build(probes).diagnostics()
    for k, probe in enumerate(probes):
        assert scalars[f"gate_mean/{k}"] == pytest.approx(np.sqrt(probe.r2) / 2, rel=1e-5)
        assert scalars[f"probe_gate_mean/{k}"] == pytest.approx(np.sqrt(probe.r2) / 2, rel=1e-5)


def alignment(kernel_BB: Tensor, labels_B: np.ndarray) -> float:
    """Centred kernel alignment with the kernel of the labels."""
    same_BB = torch.tensor(labels_B[:, None] == labels_B).double()
    centred = [k - k.mean(0) - k.mean(1, keepdim=True) + k.mean() for k in (kernel_BB, same_BB)]
    return float((centred[0] * centred[1]).sum() / (centred[0].norm() * centred[1].norm()))


def test_a_label_direction_of_little_variance_shows_in_the_target_and_not_in_the_raw_kernel() -> None:
    """One percent of the variance tells the two classes apart, as in sentences whose topics are not their sentiment."""
    random = np.random.default_rng(0)
    classes = np.arange(400) % 2
    teacher = random.normal(size=(400, 64))
    teacher[:, 0] = 0.3 * random.normal(size=400) + np.sqrt(64 * 0.01) * (2 * classes - 1)
    probe = ridge_probe(teacher[:100], np.eye(2)[classes[:100]], mean=teacher.mean(0))
    rows, unlabelled = Rows((300,), 0), torch.tensor(teacher[100:])
    target = build([probe], [64])._teacher_kernel(unlabelled, rows).detach()
    aft = build_regularizer("aft", student_dim=6, teacher_dims=[64]).double()
    raw = aft._teacher_kernel(unlabelled, rows).detach()  # type: ignore[operator]
    assert alignment(raw, classes[100:]) < 0.15
    assert alignment(target, classes[100:]) > 4 * alignment(raw, classes[100:])


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_teacher_that_knows_nothing_is_left_out_for_good(optimizer: type[torch.optim.Optimizer]) -> None:
    probes = made_probes(DIMS, noise=[0])
    assert [probe.is_useful for probe in probes] == [False, True]
    regularizer, alone = build(probes).float(), build(probes[1:], DIMS[1:]).float()
    student, teacher = features(0, 30, 6).float(), features(1, 30, 19).float()
    student.requires_grad_()
    trained = optimizer(regularizer.parameters(), lr=0.1, weight_decay=0.0, fused=True)  # type: ignore[call-arg]
    torch.testing.assert_close(regularizer(student, teacher), alone(student, teacher[:, 10:]))
    for _ in range(3):
        trained.zero_grad()
        regularizer(student, teacher).backward()
        trained.step()
    scalars = regularizer.diagnostics()
    assert [scalars[key].item() for key in ("gate_mean/0", "gate_std/0", "probe_gate_mean/0")] == [0, 0, 0]
    assert regularizer.gate_logits[10:].isfinite().all() and regularizer(student, teacher).isfinite()
    assert regularizer.facts()["r2/0"] == probes[0].r2


def test_without_a_useful_teacher_it_is_off() -> None:
    regularizer = build(made_probes(DIMS, noise=[0, 1]))
    student = features(0, 8, 6).requires_grad_()
    value = regularizer(student, features(1, 8, 19))
    value.backward()
    assert regularizer.is_off and value == 0
    assert student.grad is not None and not student.grad.any()
    assert not any(parameter.requires_grad for parameter in regularizer.parameters())


def test_a_checkpoint_holds_the_probes() -> None:
    student, teacher = features(0, 30, 6), features(1, 30, 19)
    fitted, other = build(made_probes(DIMS)), build(list(reversed(made_probes(DIMS[::-1]))))
    assert fitted(student, teacher) != other(student, teacher)
    other.load_state_dict(fitted.state_dict())
    assert fitted(student, teacher) == other(student, teacher)


def test_helpful_errors() -> None:
    with pytest.raises(ValueError, match="Regularizer 'aft_probe' needs the options probes."):
        build_regularizer("aft_probe", student_dim=6, teacher_dims=DIMS)
    with pytest.raises(
        ValueError, match=r"probes must have weights of shapes \[\(10, 5\), \(9, 5\)\], .* got \[\(9, 5\)"
    ):
        build(made_probes([9, 10]))
    with pytest.raises(ValueError, match=r"raw_weight must be >= 0, got -1\."):
        build(made_probes(DIMS), raw_weight=-1)
