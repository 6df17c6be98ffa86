"""Each kernel against the explicit formula that would not fit in memory at scale, and its invariances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aft_ray.regularizers import kernels

seeds = st.integers(0, 2**31 - 1)
fast = settings(max_examples=25, deadline=None)


def features(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def unit(x_BD: Tensor) -> Tensor:
    centred_BD = kernels.centre(x_BD)
    return centred_BD / (centred_BD.norm(dim=1, keepdim=True) + 1e-8)


def explicit_product_kernel(*parts_BD: Tensor) -> Tensor:
    outer_BD = parts_BD[0]
    for part_BD in parts_BD[1:]:
        outer_BD = (outer_BD[:, :, None] * part_BD[:, None, :]).flatten(1)
    return unit(outer_BD) @ unit(outer_BD).T


@fast
@given(seed=seeds, scale=st.floats(1e-2, 1e2))
def test_cosine_kernel_ignores_rotation_and_scaling_and_shift_of_features(seed: int, scale: float) -> None:
    x_BD = features(seed, 7, 5)
    rotation_DD = torch.linalg.qr(features(seed + 1, 5, 5)).Q
    moved_BD = scale * x_BD @ rotation_DD + features(seed + 2, 5)
    torch.testing.assert_close(kernels.cosine_kernel(moved_BD), kernels.cosine_kernel(x_BD), atol=1e-5, rtol=0)


@pytest.mark.parametrize("own", [slice(2, 6), slice(0, 7), slice(3, 3)], ids=["part", "all", "none"])
@fast
@given(seed=seeds)
def test_cosine_kernel_equals_that_of_unit_rows_forward_and_backward(own: slice, seed: int) -> None:
    x_BD, gates_D = features(seed, 7, 5).requires_grad_(), features(seed + 1, 5).sigmoid().requires_grad_()
    slopes_bB = features(seed + 2, own.stop - own.start, 7)
    ours_bB = kernels.cosine_kernel(x_BD, own, gates_D)
    unit_BD = unit(x_BD * gates_D)
    explicit_bB = unit_BD[own] @ unit_BD.T
    torch.testing.assert_close(ours_bB, explicit_bB)
    ours = torch.autograd.grad((ours_bB * slopes_bB).sum(), (x_BD, gates_D))
    explicit = torch.autograd.grad((explicit_bB * slopes_bB).sum(), (x_BD, gates_D))
    for found, expected in zip(ours, explicit, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6)


def test_a_zero_row_has_zero_cosines_and_no_gradient() -> None:
    x_BD = torch.tensor([[4.0, 4.0], [1.0, 0.0], [-2.0, -4.0]], requires_grad=True)  # the second is their mean
    gates_D = torch.tensor([2.0, 1.0], requires_grad=True)
    kernel_BB = kernels.cosine_kernel(x_BD, gates_D=gates_D)
    torch.testing.assert_close(kernel_BB, torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]]))
    rbf_BB = kernels.rbf_kernel(x_BD, gates_D=gates_D)
    torch.testing.assert_close(rbf_BB[1], torch.tensor([-1.0, 0.0, -1.0]).exp())
    (kernel_BB + rbf_BB)[1:].sum().backward()
    for gradient in (x_BD.grad, gates_D.grad):
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().max() < 10


@fast
@given(seed=seeds)
def test_rbf_kernel_equals_broadcast_differences_of_unit_rows_forward_and_backward(seed: int) -> None:
    # So small that the 1e-8 beside a norm counts, and with it the norms' own gradient.
    x_BD, gates_D = features(seed, 9, 6) * 1e-6, features(seed + 1, 6).sigmoid().requires_grad_()
    x_BD[2] = x_BD[1]
    x_BD.requires_grad_()
    unit_BD, own = unit(x_BD * gates_D), slice(1, 6)
    explicit_bB = torch.exp(-(unit_BD[own, None] - unit_BD[None]).square().sum(2))
    rbf_bB = kernels.rbf_kernel(x_BD, own, gates_D)
    torch.testing.assert_close(rbf_bB, explicit_bB, atol=1e-12, rtol=1e-9)
    slopes_bB = features(seed + 2, 5, 9)
    ours = torch.autograd.grad((rbf_bB * slopes_bB).sum(), (x_BD, gates_D))
    explicit = torch.autograd.grad((explicit_bB * slopes_bB).sum(), (x_BD, gates_D))
    for found, expected in zip(ours, explicit, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9 * float(expected.abs().max()), rtol=1e-6)


@fast
@given(seed=seeds, dims=st.lists(st.integers(1, 5), min_size=2, max_size=3))
def test_product_kernel_equals_explicit_outer_product_forward_and_backward(seed: int, dims: list[int]) -> None:
    # A width of 1 times a width of 1 makes all rows parallel, so the norms below are those of cancellation alone.
    dims[0] += 1
    parts = [features(seed + i, 6, dim).requires_grad_() for i, dim in enumerate(dims)]
    weights_BB = features(seed + 9, 6, 6)
    gates = [features(seed + 5 + i, dim).sigmoid() for i, dim in enumerate(dims)]
    ours_BB = kernels.product_kernel(parts, gates_D=gates)
    explicit_BB = explicit_product_kernel(*(part * g for part, g in zip(parts, gates, strict=True)))
    torch.testing.assert_close(ours_BB, explicit_BB, atol=1e-8, rtol=0)
    ours = torch.autograd.grad((ours_BB * weights_BB).sum(), parts)
    explicit = torch.autograd.grad((explicit_BB * weights_BB).sum(), parts)
    for ours_part, explicit_part in zip(ours, explicit, strict=True):
        torch.testing.assert_close(ours_part, explicit_part, atol=1e-6, rtol=1e-6)


def test_product_kernel_in_float32_stays_close_where_the_mean_dominates() -> None:
    parts = [features(i, 64, 32) + 3 for i in range(2)]
    error_BB = kernels.product_kernel([part.float() for part in parts]) - kernels.product_kernel(parts)
    assert error_BB.abs().max() < 5e-5


def test_product_kernel_of_a_constant_batch_is_zero_with_zero_gradient() -> None:
    parts = [features(i, 1, 3).repeat(5, 1).requires_grad_() for i in range(2)]
    kernel_BB = kernels.product_kernel(parts)
    kernel_BB.sum().backward()
    assert not kernel_BB.any()
    assert all(part.grad is not None and not part.grad.any() for part in parts)


def test_product_kernel_computes_only_the_owned_rows() -> None:
    parts = [features(0, 8, 3), features(1, 8, 4)]
    whole_BB = kernels.product_kernel(parts)
    own = slice(3, 6)
    row_mean_B = (parts[0] @ parts[0].T * (parts[1] @ parts[1].T)).mean(1)
    asked = []

    def gather(mean_b: Tensor) -> Tensor:
        asked.append(mean_b)
        return row_mean_B

    torch.testing.assert_close(kernels.product_kernel(parts, own, gather), whole_BB[own])
    assert [tuple(mean_b.shape) for mean_b in asked] == [(3,)]


@fast
@given(seed=seeds)
def test_kernel_distance_is_symmetric_and_has_its_floor_at_equality(seed: int) -> None:
    kernel_BB, other_BB = features(seed, 6, 6), features(seed + 1, 6, 6)
    distance = kernels.kernel_distance(kernel_BB, other_BB)
    assert distance == kernels.kernel_distance(other_BB, kernel_BB)
    assert distance.item() == pytest.approx((((kernel_BB - other_BB) ** 2).mean() + 1e-8).item() ** 0.5)
    assert kernels.kernel_distance(kernel_BB, kernel_BB).item() == pytest.approx(1e-4)


@fast
@given(seed=seeds)
def test_square_distances_equal_pairwise_differences(seed: int) -> None:
    x_BD = features(seed, 7, 4)
    explicit_BB = (x_BD[:, None] - x_BD[None]).square().sum(2)
    torch.testing.assert_close(kernels.square_distances(x_BD @ x_BD.T), explicit_BB, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(
        kernels.square_distances(x_BD @ x_BD.T, slice(2, 5)), explicit_BB[2:5], atol=1e-12, rtol=1e-9
    )


def test_square_distances_of_equal_rows_are_exactly_zero_in_float32() -> None:
    x_BD = features(0, 40, 3072, dtype=torch.float32)
    x_BD[7] = x_BD[31]
    square_distance_BB = kernels.square_distances(x_BD @ x_BD.T)
    assert (square_distance_BB == 0).nonzero().tolist() == sorted([[i, i] for i in range(40)] + [[7, 31], [31, 7]])


@fast
@given(seed=seeds)
def test_angle_cosines_equal_normalised_differences(seed: int) -> None:
    x_BD = features(seed, 6, 4)
    direction_BBD = torch.nn.functional.normalize(x_BD[None] - x_BD[:, None], dim=2)
    explicit_BBB = direction_BBD @ direction_BBD.transpose(1, 2)
    torch.testing.assert_close(kernels.angle_cosines(x_BD @ x_BD.T), explicit_BBB, atol=1e-9, rtol=0)
    torch.testing.assert_close(kernels.angle_cosines(x_BD @ x_BD.T, slice(4, 6)), explicit_BBB[4:], atol=1e-9, rtol=0)


def test_safe_sqrt_has_no_gradient_at_zero() -> None:
    x = torch.tensor([4.0, 0.0], requires_grad=True)
    root = kernels.safe_sqrt(x)
    root.sum().backward()
    assert root.tolist() == [2.0, 0.0]
    assert x.grad is not None and x.grad.tolist() == [0.25, 0.0]


def test_equalised_blocks_have_unit_spread_and_keep_their_direction() -> None:
    x_BT = torch.cat([features(0, 9, 3) * 50 + 7, features(1, 9, 2) / 50], dim=1)
    equal_BT = kernels.equalise_spread(x_BT, (3, 2))
    for block_BT in equal_BT.split([3, 2], dim=1):
        assert kernels.centre(block_BT).square().sum(1).mean().item() == pytest.approx(1, rel=1e-6)
    ratio_BT = equal_BT / x_BT
    torch.testing.assert_close(ratio_BT[:, :3], ratio_BT[0, 0].expand(9, 3))


def test_narrow_types_are_widened_and_wide_ones_kept() -> None:
    kept = features(0, 2, 2)
    assert kernels.at_least_float32(kept) is kept
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert kernels.at_least_float32(kept.to(dtype)).dtype == torch.float32
