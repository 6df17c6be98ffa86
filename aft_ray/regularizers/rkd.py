"""Relational knowledge distillation (arXiv 1904.05068): match the batch's distances and angles."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from aft_ray.regularizers import kernels
from aft_ray.regularizers.base import Regularizer, Scope
from aft_ray.regularizers.distributed import Rows

BLOCK_SIZE = 2**20
"""Cosines at hand at once, out of B^3: 4 MiB in float32."""

TINY = 1e-30
"""Keeps a sum of no distances from being a divisor of zero."""


class Rkd(Regularizer):
    """Relational distillation: smooth L1 between scaled distances (B^2) and between cosines of angles (B^3).

    All follow from the B x B inner products of centred features. Distances are divided by their mean over distinct points.
    """

    name = "rkd"
    title = "relational KD"
    colours = ("#00805e", "#2fc79a")
    betas = (2.5, 10.0, 40.0, 160.0)

    def __init__(self, student_dim: int, teacher_dims: Sequence[int], *, scope: Scope = "global") -> None:
        super().__init__(student_dim, teacher_dims, scope=scope)

    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        of_own = [_own_gram(x_BD, rows) for x_BD in rows.gather_together(student[0], teacher_bT)]
        student_BB, teacher_BB = rows.gather_together(*of_own)
        distances_bB = (_scaled_distances(student_BB, rows), _scaled_distances(teacher_BB, rows))
        distance_term = rows.mean_loss(smooth_l1_loss(*distances_bB, reduction="none").mean(1))
        own_angle_sum = _AngleErrorSum.apply(student_BB, teacher_BB, rows.own)
        angle_term = rows.mean_loss(own_angle_sum[None]) / rows.total**2
        return (distance_term + 2 * angle_term) / 2


def _own_gram(x_BD: Tensor, rows: Rows) -> Tensor:
    centred_BD = kernels.centre(x_BD)
    return kernels.linear_kernel(rows.keep(centred_BD), centred_BD)


def _scaled_distances(gram_BB: Tensor, rows: Rows) -> Tensor:
    distance_bB = kernels.safe_sqrt(kernels.square_distances(gram_BB, rows.own))
    # A batch of one, or of equal rows, has no positive distance: all stay zero.
    inverse_mean = rows.mean((distance_bB > 0).to(distance_bB).sum(1)) / (rows.mean(distance_bB.sum(1)) + TINY)
    return distance_bB * inverse_mean


class _AngleErrorSum(torch.autograd.Function):
    """Smooth L1 error of the cosines at the ``own`` vertices, summed, from both models' inner products (B, B).

    Forward takes a block of vertices i at a time and adds up the gradient with the value, so that none of the B^3 cosines
    outlive their block. With g the inner products, s squared distances, e the slope of the error, and

        c_ijk = (g_jk - g_ij - g_ik + g_ii) / sqrt(s_ij s_ik)        w_ijk = e_ijk / sqrt(s_ij s_ik)

    the gradient through the numerators is w_ijk for g_jk and g_ii, and its negative for g_ij and g_ik; the gradient of s_ij is
    - sum_k e_ijk c_ijk / s_ij, once as j and once as k, and s_ij = g_ii + g_jj - 2 g_ij.
    """

    @staticmethod
    def forward(ctx: Any, student_BB: Tensor, teacher_BB: Tensor, own: slice) -> Tensor:
        total, inner_BB = student_BB.new_zeros(()), torch.zeros_like(student_BB)
        edges_bB, square_B = [], torch.zeros_like(student_BB[0])
        block_rows = max(1, BLOCK_SIZE // student_BB.numel())
        for start in range(own.start, own.stop, block_rows):
            block = slice(start, min(start + block_rows, own.stop))
            inverse_rB = kernels.inverse_sqrt(kernels.square_distances(student_BB, block))
            cosine_rBB = kernels.angle_cosines(student_BB, block)
            error_rBB = cosine_rBB - kernels.angle_cosines(teacher_BB, block)
            total = total + smooth_l1_loss(error_rBB, torch.zeros_like(error_rBB), reduction="sum")
            slope_rBB = error_rBB.clamp(-1, 1)
            square_rB = -inverse_rB.square() * (slope_rBB * cosine_rBB).sum(2)
            weight_rBB = slope_rBB * inverse_rB[:, :, None] * inverse_rB[:, None, :]
            inner_BB = inner_BB + weight_rBB.sum(0)
            edges_bB.append(weight_rBB.sum(2) + square_rB)
            square_B = square_B + square_rB.sum(0)
        edge_BB = torch.zeros_like(student_BB)
        if edges_bB:
            edge_BB[own] = torch.cat(edges_bB)
        ctx.save_for_backward(inner_BB - 2 * edge_BB + torch.diag(edge_BB.sum(1) + square_B))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (grad_BB,) = ctx.saved_tensors
        return grad * grad_BB, None, None
