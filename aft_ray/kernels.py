"""Pure tensor maths of the kernel methods: centre, normalise, kernels, kernel distance. No state, no processes.

Shape suffixes: B rows of the whole batch, b rows of it that the caller owns (all of them without a process group),
r rows of one block, D feature width, T summed teacher width. A ``_bB`` matrix holds the owned rows of a B x B matrix.

The functions that need more than their own rows take the missing step as an argument, whose default is right when one
process holds the whole batch: ``gather`` turns values of the owned rows into those of all rows, ``keep`` is the way back, and
``mean_rows`` averages over all rows. `aft_ray.distributed.Rows` has all three for a batch that is spread over workers.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to row norms and to the mean square under the root, as in the authors' code."""

ROUNDING = 16
"""A squared length below this many machine epsilons of its terms is cancellation noise, so it counts as zero."""

RowOp = Callable[[Tensor], Tensor]


def _identity(x: Tensor) -> Tensor:
    return x


def _mean_rows(x: Tensor) -> Tensor:
    return x.mean(0)


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
    """Inner products (b, B) of the rows of ``x_bD`` with those of ``y_BD``."""
    return x_bD @ y_BD.T


def cosine_kernel(x_BD: Tensor, keep: RowOp = _identity, weights_D: Tensor | None = None) -> Tensor:
    """Linear kernel (b, B) of rows that are first divided by their norm + 1e-8; a zero row has zeros.

    With ``weights_D`` (positive) it is that of ``x_BD * weights_D.sqrt()``. Weights stand between the rows and norms come after
    the inner products, so that where only the weights have a gradient, two passes of B x D multiplications and one matrix
    product backward are all there is: nothing as large as ``x_BD`` is differentiated.
    """
    return _divided_by_norms(*_gram(x_BD, keep, weights_D), keep)


def rbf_kernel(x_BD: Tensor, keep: RowOp = _identity, weights_D: Tensor | None = None) -> Tensor:
    """``exp(-||x - y||^2)`` (b, B) of the rows that `cosine_kernel` takes the products of: never (b, B, D)."""
    gram_bB, square_norm_B = _gram(x_BD, keep, weights_D)
    square_B = square_norm_B * inverse_sqrt(square_norm_B, EPSILON).square()  # 1, or 0 of a zero row
    cosine_bB = _divided_by_norms(gram_bB, square_norm_B, keep)
    return torch.exp(2 * cosine_bB - keep(square_B)[:, None] - square_B)


def product_kernel(
    parts_BD: Sequence[Tensor],
    keep: RowOp = _identity,
    gather: RowOp = _identity,
    weights_D: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Linear kernel (b, B) of the centred, normalised outer products of the parts' rows, without forming them.

    For f_i = a_i (x) c_i the inner products factor, ``f_i . f_j = (a_i . a_j)(c_i . c_j)``, so the kernel of f is the
    elementwise product K of the parts' kernels. Centring f over the batch is H K H with H = I - 11'/B, that is, taking off
    row means, column means (the same, K is symmetric) and adding the grand mean; the squared row norms are its diagonal.

    ``parts_BD`` are two or more tensors with B rows each, ``weights_D`` as in `cosine_kernel` for each; the owned rows are
    computed here, and ``gather`` is called once, with their means. What all rows share cancels after, not before, the
    products: in float32 the error is 5e-7 for centred features and 1e-5 for features whose mean is five times their spread.
    """
    grams = [_gram(part, keep, w) for part, w in zip(parts_BD, weights_D or [None] * len(parts_BD), strict=True)]
    kernel_bB, diagonal_B = (reduce(torch.mul, factors) for factors in zip(*grams, strict=True))
    row_mean_B = gather(kernel_bB.mean(1))
    grand_mean = row_mean_B.mean()
    centred_bB = kernel_bB - keep(row_mean_B)[:, None] - row_mean_B + grand_mean
    square_norm_B = _clean_square(diagonal_B - 2 * row_mean_B + grand_mean, diagonal_B + grand_mean)
    return _divided_by_norms(centred_bB, square_norm_B, keep)


def kernel_distance(kernel_bB: Tensor, other_bB: Tensor, mean_rows: RowOp = _mean_rows) -> Tensor:
    """Root-mean-square difference of two B x B kernels, ``sqrt(mean((K - L)^2) + 1e-8)``: a scalar, at least 1e-4."""
    return (mean_rows((kernel_bB - other_bB).square().mean(1)) + EPSILON).sqrt()


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


def _gram(x_BD: Tensor, keep: RowOp, weights_D: Tensor | None) -> tuple[Tensor, Tensor]:
    """Inner products (b, B) of the owned rows with all, and the squared norms (B,) of all."""
    if weights_D is None:
        return linear_kernel(keep(x_BD), x_BD), x_BD.square().sum(1)
    return linear_kernel(keep(x_BD) * weights_D, x_BD), x_BD.square() @ weights_D


def _divided_by_norms(gram_bB: Tensor, square_norm_B: Tensor, keep: RowOp) -> Tensor:
    inverse_norm_B = inverse_sqrt(square_norm_B, EPSILON)
    return gram_bB * keep(inverse_norm_B)[:, None] * inverse_norm_B


def _diagonal(matrix_BB: Tensor) -> Tensor:
    """The diagonal as a copy: compiled with torch 2.15, a view of it is read after the matrix has been overwritten."""
    index_B = torch.arange(matrix_BB.shape[0], device=matrix_BB.device)
    return matrix_BB[index_B, index_B]


def _clean_square(x: Tensor, scale: Tensor) -> Tensor:
    """``x``, a difference of terms as large as ``scale``; zero where it is no larger than their rounding errors."""
    return torch.where(x > ROUNDING * torch.finfo(x.dtype).eps * scale, x, 0)
