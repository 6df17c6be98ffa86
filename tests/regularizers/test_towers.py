"""Students with two towers and several teachers for each: the formulas, and one teacher of each as it always was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from aft_ray.regularizers import Regularizer, build_regularizer
from tests.helpers.probes import made_probes, with_logits
from tests.helpers.regularizers import MODALITY_DIMS, PRODUCTS, build, features, inputs

DIMS, TOWERS = [4, 9, 6], [0, 1, 0]
"""Three teachers: the first and the last belong to the first tower."""
METHODS = ("aft", "aft_probe", "kd", "probe_kd")


def several(method: str, dims: list[int] = DIMS, towers: list[int] = TOWERS, **options: Any) -> Regularizer:
    torch.manual_seed(0)
    if method in ("aft_probe", "probe_kd"):
        options["probes"] = made_probes([sum(dims)])
    built = build_regularizer(
        method, student_dim=MODALITY_DIMS, teacher_dims=dims, combine="product", towers=towers, **options
    )
    return with_logits(built.double())


def pair(num_rows: int = 12) -> tuple[tuple[Tensor, Tensor], Tensor]:
    student, _ = inputs("aft product", num_rows)
    return student, features(3, num_rows, sum(DIMS)) + 1


def in_towers(x: Tensor) -> tuple[Tensor, Tensor]:
    """The columns of both towers."""
    one, other, two = x.split(DIMS, dim=-1)
    return torch.cat([one, two], -1), other


def outer(a_BD: Tensor, c_BD: Tensor) -> Tensor:
    return (a_BD[:, :, None] * c_BD[:, None, :]).flatten(1)


def spread(x_BD: Tensor) -> Tensor:
    return (x_BD - x_BD.mean(0)).square().sum(1).mean().sqrt()


def distance(student_BD: Tensor, target_BD: Tensor) -> Tensor:
    rows = [normalize(x - x.mean(0)) for x in (student_BD, target_BD)]
    return ((rows[0] @ rows[0].T - rows[1] @ rows[1].T).square().mean() + 1e-8).sqrt()


@pytest.mark.parametrize("variant", PRODUCTS)
def test_one_teacher_of_each_tower_is_the_same_to_the_last_digit_with_its_tower_named(variant: str) -> None:
    (student, teacher), found = inputs(variant), []
    for options in ({}, {"towers": [0, 1]}):
        regularizer = build(variant, **options)
        value = regularizer(student, teacher)
        found.append(
            [value, regularizer.target_kernel(teacher), *torch.autograd.grad(value, student, allow_unused=True)]
        )
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("normalize_by", ["none", "per_teacher"])
def test_aft_multiplies_the_gated_teachers_of_each_tower_side_by_side(normalize_by: str) -> None:
    student, teacher = pair()
    regularizer = several("aft", normalize=normalize_by)
    gates = features(4, sum(DIMS))
    regularizer.load_state_dict({"gate_logits": gates})
    blocks = [block / (spread(block) if normalize_by == "per_teacher" else 1) for block in teacher.split(DIMS, 1)]
    target = outer(*in_towers(torch.cat(blocks, 1) * gates.sigmoid()))
    torch.testing.assert_close(regularizer(student, teacher), distance(outer(*student), target), rtol=1e-6, atol=0)


def test_kd_predicts_the_teachers_of_each_tower_from_that_tower() -> None:
    student, teacher = pair()
    regularizer = several("kd")
    layers: Any = regularizer.projection
    errors = [
        (part @ layer.weight.T + layer.bias - target).square().mean()
        for part, layer, target in zip(student, layers, in_towers(teacher), strict=True)
    ]
    torch.testing.assert_close(regularizer(student, teacher), sum(errors) / 2)


def test_aft_probe_has_their_outer_product_beside_one_probe_of_all() -> None:
    student, teacher = pair()
    (probe,), regularizer = made_probes([sum(DIMS)]), several("aft_probe")
    gate = probe.r2**0.5 / 2
    raw = outer(*in_towers(torch.cat([block / spread(block) for block in teacher.split(DIMS, 1)], 1)))
    predicted = torch.tensor(probe.predict(teacher.numpy()))
    predicted = (predicted - predicted.mean(0)) / spread(predicted)
    target = torch.cat([0.5 * gate * (raw - raw.mean(0)) / spread(raw), gate * predicted], 1)
    torch.testing.assert_close(regularizer(student, teacher), distance(outer(*student), target), rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ["aft", "kd"])
def test_the_order_of_the_teachers_does_not_matter(method: str) -> None:
    student, teacher = pair()
    here, sorted_ = several(method), several(method, [4, 6, 9], [0, 0, 1])
    sorted_.load_state_dict(here.state_dict())  # equal gates, and kd's maps are of towers
    torch.testing.assert_close(here(student, teacher), sorted_(student, torch.cat(in_towers(teacher), 1)))


@pytest.mark.parametrize("method", METHODS)
def test_every_tower_and_every_gate_learns(method: str) -> None:
    student, teacher = pair()
    regularizer = several(method)
    found = torch.autograd.grad(regularizer(student, teacher), [*student, *regularizer.parameters()])
    assert all(gradient.abs().sum() > 0 for gradient in found)
    assert regularizer.target_kernel(teacher).shape == (12, 12)


def test_without_towers_three_teachers_are_three_factors_as_in_the_authors_code() -> None:
    student, teacher = pair()
    regularizer = build_regularizer("aft", student_dim=MODALITY_DIMS, teacher_dims=DIMS, combine="product").double()
    one, other, two = teacher.split(DIMS, 1)
    target = outer(outer(one, other), two)
    torch.testing.assert_close(regularizer(student, teacher), distance(outer(*student), target), rtol=1e-6, atol=0)
