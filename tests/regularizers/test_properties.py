"""Every regularizer has the right invariances, gradients and diagnostics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aft_ray.regularizers import FeatureEncoder, build_regularizer, log_me
from tests.helpers.regularizers import STUDENT_DIM, TEACHER_DIMS, VARIANTS, build, features, inputs, tensors

seeds = st.integers(0, 2**31 - 1)
fast = settings(max_examples=20, deadline=None)


@fast
@given(seed=seeds, scale=st.floats(1e-2, 1e2))
@pytest.mark.parametrize("name", ["aft", "aft_rbf", "aft_dense", "aft_probe"])
def test_kernel_methods_ignore_rotation_scaling_and_shift_of_the_student(name: str, seed: int, scale: float) -> None:
    student, teacher = inputs(name, seed=seed % 10_000)
    rotation = torch.linalg.qr(features(seed, STUDENT_DIM, STUDENT_DIM)).Q
    regularizer = build(name)
    moved = regularizer(scale * student @ rotation + features(seed + 1, STUDENT_DIM), teacher)
    assert moved.item() == pytest.approx(regularizer(student, teacher).item(), rel=1e-5)


@fast
@given(seed=seeds)
@pytest.mark.parametrize("variant", VARIANTS)
def test_order_of_rows_does_not_matter(variant: str, seed: int) -> None:
    student, teacher = inputs(variant, seed=seed % 10_000)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    shuffled = tuple(part[order] for part in tensors(student))
    regularizer = build(variant)
    value = regularizer(shuffled if len(shuffled) > 1 else shuffled[0], teacher[order])
    torch.testing.assert_close(value, regularizer(student, teacher), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", ["aft", "aft_rbf", "rkd"])
def test_comparison_is_symmetric_and_lowest_at_equality(name: str) -> None:
    ours, theirs = features(0, 8, 5), features(1, 8, 5)
    regularizer = build_regularizer(name, student_dim=5, teacher_dims=[5]).double()
    torch.testing.assert_close(regularizer(ours, theirs), regularizer(theirs, ours))
    floor = 1e-4 if name != "rkd" else 0  # the square root of the 1e-8 under it
    assert regularizer(ours, ours).item() == pytest.approx(floor, abs=1e-12)


@fast
@given(seed=seeds)
def test_aft_product_equals_aft_on_the_explicit_outer_products(seed: int) -> None:
    student, teacher = inputs("aft product", seed=seed % 10_000)
    product = build("aft product")
    nn.init.normal_(product.gate_logits)  # type: ignore[arg-type]
    gated = (teacher * product.gate_logits.sigmoid()).split(TEACHER_DIMS, dim=1)  # type: ignore[operator]
    outer, teacher_outer = ((a[:, :, None] * c[:, None, :]).flatten(1) for a, c in (student, gated))
    explicit = build_regularizer("aft", student_dim=outer.shape[1], teacher_dims=[90]).double()
    value, expected = product(student, teacher), explicit(outer, 2 * teacher_outer)  # whose gates are all one half
    torch.testing.assert_close(value, expected, atol=1e-12, rtol=1e-9)
    for ours, theirs in zip(torch.autograd.grad(value, student), torch.autograd.grad(expected, student), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize("name", ["aft", "aft_rbf"])
def test_gates_shut_out_noise_dimensions(name: str) -> None:
    """Half of the teacher is a rotation of the student, half is noise: descent lowers the gates of the noise only."""
    student = features(0, 64, 8)
    teacher = torch.cat([student @ torch.linalg.qr(features(1, 8, 8)).Q, features(2, 64, 8)], dim=1)
    regularizer = build_regularizer(name, student_dim=8, teacher_dims=[8, 8]).double()
    regularizer(student, teacher).backward()
    grad = regularizer.gate_logits.grad
    assert isinstance(grad, Tensor)
    assert (grad[8:] > 0).all() and (grad[:8] < 0).all()
    optimizer = torch.optim.Adam(regularizer.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        regularizer(student, teacher).backward()
        optimizer.step()
    scalars = regularizer.diagnostics()
    assert scalars["gate_mean/1"] < 0.1 < 0.5 < scalars["gate_mean/0"]


def test_normalize_per_teacher_ignores_the_norm_of_a_teacher() -> None:
    student, teacher = inputs("aft")
    louder = torch.cat([teacher[:, :10] * 1000, teacher[:, 10:]], dim=1)
    plain, equalised = build("aft"), build("aft per_teacher")
    torch.testing.assert_close(equalised(student, louder), equalised(student, teacher), rtol=1e-7, atol=0)
    assert abs(plain(student, louder) - plain(student, teacher)) > 1e-3


def test_gates_are_learned_unless_told_otherwise() -> None:
    assert [parameter.requires_grad for parameter in build("aft").parameters()] == [True]
    assert [parameter.requires_grad for parameter in build("aft", learn_gates=False).parameters()] == [False]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_and_the_student_get_a_gradient_and_the_teacher_none(variant: str) -> None:
    regularizer = build(variant)
    student, teacher = inputs(variant)
    teacher.requires_grad_()
    value = regularizer(student, teacher)
    assert value.dim() == 0 and value >= 0
    value.backward()
    assert all(parameter.grad is not None for parameter in [*regularizer.parameters(), *tensors(student)])
    assert teacher.grad is None


@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_batches_of_one_and_of_equal_rows_have_finite_values_and_gradients(variant: str, num_rows: int) -> None:
    regularizer = build(variant)
    student, teacher = inputs(variant, num_rows=1)
    repeated = tuple(part.expand(num_rows, -1) for part in tensors(student))
    value = regularizer(repeated if len(repeated) > 1 else repeated[0], teacher.expand(num_rows, -1))
    value.backward()
    grads = [tensor.grad for tensor in [*regularizer.parameters(), *tensors(student)]]
    assert value.isfinite() and all(grad is not None and grad.isfinite().all() for grad in grads)


def test_none_is_zero() -> None:
    assert build("none")(*inputs("none")).item() == 0


def test_btune_is_zero_for_the_pretrained_student_that_is_its_own_teacher() -> None:
    labels = np.arange(40) % 3
    pretrained = features(0, 40, 6) + torch.tensor(labels)[:, None]
    score, weights = log_me(pretrained, labels)
    regularizer = build_regularizer(
        "btune", student_dim=6, teacher_dims=[6], student_weights=weights, teacher_weights=[weights], scores=[score]
    )
    assert regularizer(pretrained, pretrained).item() == pytest.approx(0, abs=1e-12)
    assert regularizer(pretrained + features(1, 40, 6), pretrained) > 1e-3


def test_btune_takes_nothing_from_teachers_whose_features_are_all_zero() -> None:
    labels = np.arange(40) % 3
    student, good = log_me(features(0, 40, 6), labels), log_me(features(1, 40, 5), labels)
    dead = log_me(np.zeros((40, 4)), labels)
    weights = {"student_weights": student[1], "teacher_weights": [dead[1], good[1]], "scores": [dead[0], good[0]]}
    both = build_regularizer("btune", student_dim=6, teacher_dims=[4, 5], **weights)
    alone = build_regularizer(
        "btune", student_dim=6, teacher_dims=[5], student_weights=student[1], teacher_weights=good[1:], scores=good[:1]
    )
    rows, teacher = features(2, 8, 6), features(3, 8, 5)
    torch.testing.assert_close(both(rows, torch.cat([torch.zeros(8, 4), teacher], 1)), alone(rows, teacher))
    weights |= {"teacher_weights": dead[1:], "scores": dead[:1]}
    off = build_regularizer("btune", student_dim=6, teacher_dims=[4], **weights)
    assert off.is_off and off(rows, torch.zeros(8, 4)) == 0 and not both.is_off


def test_ft_compares_with_the_codes_of_its_encoder() -> None:
    encoder = FeatureEncoder(TEACHER_DIMS)
    student, teacher = inputs("ft")
    encoded, direct = (
        build("ft", encoder=encoder),
        build_regularizer("ft", student_dim=STUDENT_DIM, teacher_dims=[5, 4]),
    )
    own = {name: value for name, value in encoded.state_dict().items() if not name.startswith("encoder.")}
    direct.double().load_state_dict(own)
    torch.testing.assert_close(encoded(student, teacher), direct(student, encoder(teacher)))
    assert all(name.startswith("translator.") for name, p in encoded.named_parameters() if p.requires_grad)


def test_ft_starts_from_a_zero_last_layer_with_the_usual_bias() -> None:
    last = dict(build("ft").named_parameters())
    assert not last["translator.4.weight"].any() and last["translator.4.bias"].all()


def test_diagnostics_name_the_kernel_distance_and_the_gates_of_each_teacher() -> None:
    regularizer = build("aft")
    gates = {"gate_mean/0", "gate_std/0", "gate_mean/1", "gate_std/1"}
    assert regularizer.diagnostics().keys() == gates
    value = regularizer(*inputs("aft"))
    scalars = regularizer.diagnostics()
    assert scalars.keys() == gates | {"kernel_distance"}
    assert not any(scalar.requires_grad for scalar in scalars.values())
    assert scalars["kernel_distance"] == value
    assert [scalars["gate_mean/1"].item(), scalars["gate_std/1"].item()] == [0.5, 0.0]
    assert build("kd").diagnostics() == {}
