"""Pure tensor maths of the kernel methods: centre, normalise, kernels, kernel distance. No state, no processes.

Shape suffixes: B rows of the whole batch, b rows of it that the caller owns (all of them without a process group),
r rows of one block, D feature width, T summed teacher width. A ``_bB`` matrix holds the owned rows of a B x B matrix.

``own`` says which rows the caller owns. Functions that need other rows too take the missing step as an argument, with a default
that is right when one process holds the whole batch: ``gather`` turns values of the owned rows into values of all rows, and
``total`` adds a number up over workers. `distributed.Rows` has all three for a batch that is spread over workers.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import mse_loss

EPSILON = 1e-8
"""Added to row norms and to the mean square under the root, as in the authors' code."""

ROUNDING = 16
"""A squared length below this many machine epsilons of its terms is cancellation noise, so it counts as zero."""

RowOp = Callable[[Tensor], Tensor]


def _identity(x: Tensor) -> Tensor:
    return x


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` itself, or in float32 where it has a narrower floating type (autocast's bf16 and fp16)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def centre(x_BD: Tensor) -> Tensor:
    """``x_BD`` minus its mean over the batch."""
    return x_BD - x_BD.mean(0)


def equalise_spread(x_BT: Tensor, dims: Sequence[int]) -> Tensor:
    """Consecutive blocks of ``dims`` columns, each scaled to a root-mean-square distance of 1 from its batch mean."""
    blocks = x_BT.split(list(dims), dim=1)
    return torch.cat([block / (centre(block).square().sum(1).mean().sqrt() + EPSILON) for block in blocks], dim=1)


def linear_kernel(x_bD: Tensor, y_BD: Tensor) -> Tensor:
    """Inner products (b, B) of the rows of ``x_bD`` and of ``y_BD``."""
    return x_bD @ y_BD.T


def cosine_kernel(x_BD: Tensor, own: slice | None = None, gates_D: Tensor | None = None) -> Tensor:
    """Inner products (b, B) of the owned rows with all, each centred over the batch, multiplied by the gates and divided by its
    norm + 1e-8. A row that is zero by then has zeros, and no gradient."""
    return _CosineKernel.apply(x_BD, gates_D, own)[0]


def rbf_kernel(x_BD: Tensor, own: slice | None = None, gates_D: Tensor | None = None) -> Tensor:
    """``exp(-||x - y||^2)`` (b, B) of the rows that `cosine_kernel` takes the products of: never (b, B, D)."""
    cosine_bB, norm_B = _CosineKernel.apply(x_BD, gates_D, own)
    square_B = (norm_B / (norm_B + EPSILON)).square()
    return torch.exp(2 * cosine_bB - _own(square_B, own)[:, None] - square_B)


class _CosineKernel(torch.autograd.Function):
    """`cosine_kernel`, and the norms (B,) that it divided by. On a GPU its cost is the number of operations, not their
    size: autograd would take twice as many.

    With centred rows c, gates g, norms r = |c g|, n = r + 1e-8 and unit rows u = c g / n, the kernel is u u', and G, the gradient
    with respect to it, reaches a row of u as y_i = sum_j (G_ij + G_ji) u_j. The gradient of c g is

        (y_i - u_i (u_i . y_i) n_i / r_i) / n_i        u_i . y_i = sum_j (G_ij + G_ji) (u u')_ij

    and to the norms' own gradient h_i as h_i u_i n_i / r_i. The last step, centring, is its own adjoint.
    """

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, gates_D: Tensor | None, own: slice | None) -> tuple[Tensor, Tensor]:
        centred_BD = centre(x_BD)
        unit_BD = centred_BD if gates_D is None else centred_BD * gates_D
        norm_B = torch.linalg.vector_norm(unit_BD, dim=1)
        divisor_B = norm_B + EPSILON
        unit_BD = unit_BD.div_(divisor_B[:, None])
        kernel_bB = _own(unit_BD, own) @ unit_BD.T
        ctx.own = own
        ctx.save_for_backward(gates_D, None if gates_D is None else centred_BD, unit_BD, norm_B, divisor_B, kernel_bB)
        ctx.set_materialize_grads(False)
        return kernel_bB, norm_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_bB: Tensor, norm_slope_B: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        gates_D, centred_BD, unit_BD, norm_B, divisor_B, kernel_bB = ctx.saved_tensors
        inverse_B = (norm_B > 0) / divisor_B
        if _is_all(ctx.own, norm_B):
            slope_BB = slope_bB + slope_bB.T
            along_B = (slope_BB * kernel_bB).sum(1)
        else:
            product_bB = slope_bB * kernel_bB
            along_B = product_bB.sum(0)
            along_B[ctx.own] += product_bB.sum(1)
        if norm_slope_B is not None:
            along_B = along_B - norm_slope_B * divisor_B
        radial_B = along_B / norm_B.clamp_min(torch.finfo(norm_B.dtype).tiny)  # a zero row has nothing along it
        if _is_all(ctx.own, norm_B):
            slope_BB.mul_(inverse_B[:, None]).diagonal().sub_(radial_B)
            grad_BD = slope_BB @ unit_BD
        else:
            grad_BD = slope_bB.T @ unit_BD[ctx.own]
            grad_BD[ctx.own] += slope_bB @ unit_BD
            grad_BD.mul_(inverse_B[:, None]).addcmul_(unit_BD, radial_B[:, None], value=-1)
        of_gates_D = (grad_BD * centred_BD).sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_gates_D, None
        return centre(grad_BD if gates_D is None else grad_BD * gates_D), of_gates_D, None


def product_kernel(
    parts_BD: Sequence[Tensor],
    own: slice | None = None,
    gather: RowOp = _identity,
    gates_D: Sequence[Tensor | None] | None = None,
    *,
    beside_BD: Tensor | None = None,
    weight: float = 1.0,
) -> Tensor:
    """Linear kernel (b, B) of the centred, normalised outer products of the parts' rows, without forming them.

    For f_i = a_i (x) c_i the inner products factor, ``f_i . f_j = (a_i . a_j)(c_i . c_j)``, so the kernel of f is the
    elementwise product K of the parts' kernels. Centring f over the batch is H K H with H = I - 11'/B, that is, taking off
    row means, column means (the same, K is symmetric) and adding the grand mean; the squared row norms are its diagonal.

    ``parts_BD`` are two or more tensors with B rows each, multiplied by ``gates_D`` where there are some; the owned rows are
    computed here, and ``gather`` is called once, with their means. The part common to all rows cancels after, not before, the
    products: in float32 the error is 5e-7 for centred features and 1e-5 for features whose mean is five times their spread.

    ``beside_BD`` are more columns of f, beside outer products that are then scaled to a root-mean-square norm of ``weight``,
    but for their gates, before all are normalised.
    """
    centred_bB, square_norm_B = _centred_product(parts_BD, own, gather, gates_D)
    if beside_BD is not None:
        with torch.no_grad():
            _, ungated_B = _centred_product(parts_BD, own, gather, None)
            factor = weight**2 / (ungated_B.mean() + EPSILON)
        beside_BD = centre(beside_BD)
        centred_bB = factor * centred_bB + linear_kernel(_own(beside_BD, own), beside_BD)
        square_norm_B = factor * square_norm_B + beside_BD.square().sum(1)
    inverse_norm_B = inverse_sqrt(square_norm_B, EPSILON)
    return centred_bB * _own(inverse_norm_B, own)[:, None] * inverse_norm_B


def _centred_product(
    parts_BD: Sequence[Tensor], own: slice | None, gather: RowOp, gates_D: Sequence[Tensor | None] | None
) -> tuple[Tensor, Tensor]:
    """The centred kernel (b, B) of outer products, and its diagonal (B,)."""
    grams = [_gram(part, own, g) for part, g in zip(parts_BD, gates_D or [None] * len(parts_BD), strict=True)]
    kernel_bB, diagonal_B = (reduce(torch.mul, factors) for factors in zip(*grams, strict=True))
    row_mean_B = gather(kernel_bB.mean(1))
    grand_mean = row_mean_B.mean()
    centred_bB = kernel_bB - _own(row_mean_B, own)[:, None] - row_mean_B + grand_mean
    return centred_bB, _clean_square(diagonal_B - 2 * row_mean_B + grand_mean, diagonal_B + grand_mean)


def kernel_distance(kernel_bB: Tensor, other_bB: Tensor, total: RowOp = _identity) -> Tensor:
    """Root-mean-square difference of two B x B kernels, ``sqrt(mean((K - L)^2) + 1e-8)``: a scalar, at least 1e-4."""
    square_sum = total(mse_loss(kernel_bB, other_bB, reduction="sum"))
    return (square_sum / kernel_bB.shape[1] ** 2 + EPSILON).sqrt()


def square_distances(gram_BB: Tensor, rows: slice = slice(None)) -> Tensor:
    """Squared Euclidean distances (r, B) of ``rows`` to all, from the inner products of all; zero where rounding rules."""
    square_norm_B = _diagonal(gram_BB)
    scale_rB = square_norm_B[rows, None] + square_norm_B
    return _clean_square(scale_rB - 2 * gram_BB[rows], scale_rB)


def angle_cosines(gram_BB: Tensor, rows: slice = slice(None)) -> Tensor:
    """Cosines (r, B, B) of the angle at each of ``rows`` between every two rows, from the inner products of all.

    ``(x_j - x_i).(x_k - x_i) = x_j.x_k - x_i.x_j - x_i.x_k + x_i.x_i`` over both lengths, so that no (r, B, D) differences
    are needed. Zero where j or k coincides with i.
    """
    gram_rB, square_norm_r = gram_BB[rows], _diagonal(gram_BB)[rows]
    inverse_rB = inverse_sqrt(square_distances(gram_BB, rows))
    inner_rBB = gram_BB - gram_rB[:, :, None] - gram_rB[:, None, :] + square_norm_r[:, None, None]
    return inner_rBB * inverse_rB[:, :, None] * inverse_rB[:, None, :]


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero instead of infinite."""
    positive = x > 0
    return torch.where(positive, x, 1).sqrt() * positive


def inverse_sqrt(square: Tensor, epsilon: float = 0.0) -> Tensor:
    """``1 / (sqrt(square) + epsilon)``, and zero (also the gradient) where ``square`` is zero."""
    positive = square > 0
    return positive / (torch.where(positive, square, 1).sqrt() + epsilon)


def _is_all(own: slice | None, x_B: Tensor) -> bool:
    return own is None or own.stop - own.start == len(x_B)


def _own(x_BD: Tensor, own: slice | None) -> Tensor:
    """The owned rows; ``x_BD`` itself where all are, since the gradient of a slice is a copy of the whole."""
    return x_BD if own is None or _is_all(own, x_BD) else x_BD[own]


def _gram(x_BD: Tensor, own: slice | None, gates_D: Tensor | None) -> tuple[Tensor, Tensor]:
    """Inner products (b, B) of the owned gated rows with all, and the squared norms (B,) of all."""
    if gates_D is None:
        return linear_kernel(_own(x_BD, own), x_BD), x_BD.square().sum(1)
    weights_D = gates_D.square()  # between the rows, where nothing as large as they are is differentiated
    return linear_kernel(_own(x_BD, own) * weights_D, x_BD), x_BD.square() @ weights_D


def _diagonal(matrix_BB: Tensor) -> Tensor:
    """The diagonal as a copy: compiled with torch 2.15, a view of it is read after the matrix has been overwritten."""
    index_B = torch.arange(matrix_BB.shape[0], device=matrix_BB.device)
    return matrix_BB[index_B, index_B]


def _clean_square(x: Tensor, scale: Tensor) -> Tensor:
    """``x``, a difference of terms as large as ``scale``; zero where it is no larger than their rounding errors."""
    return torch.where(x > ROUNDING * torch.finfo(x.dtype).eps * scale, x, 0)
