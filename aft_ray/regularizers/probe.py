"""A linear probe of teacher features: ridge regression in closed form, judged by its exact leave-one-out error.

G are the features of the labelled rows, centred and scaled like all train rows; L = G minus its own mean (n, T); Y the targets
minus their mean, the prior (n, C). With the ridge r the probe is

    W = (L'L + r n I)^-1 L'Y        prediction of a row g: (g - mean of G) W

and E, the errors of n probes that are each fitted without the row that they predict, need no second fit. With the eigenvectors
U and eigenvalues s of LL' except the constant direction, which the intercept takes, and q = r n / (s + r n),

    E = U (q * U'Y) / (U^2 q)        R2 = 1 - mean(E^2) / mean((Y n / (n - 1))^2)

where Y n / (n - 1) are the errors of the other rows' mean. Here nothing cancels. The textbook form, residual over 1 - leverage,
takes differences of nearly equal numbers where a row's leverage is near 1, but needs only sums over rows and one more pass. It
serves for n > T, where 1 - leverage is at least r / (1 + r): no more than four of sixteen digits are lost.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aft_ray.regularizers.logme import Float64
from aft_ray.regularizers.probe_statistics import LEAST_R2, ProbeStatistics, float64_chunks, labelled

RIDGES: Float64 = 10.0 ** np.arange(-4, 3.5, 0.5)
"""The ridges r to choose from; features have a root-mean-square norm of 1."""

Batches = Callable[[], Iterable[tuple[ArrayLike, ArrayLike]]]
"""Starts a pass over the train rows: features (n, T) and targets (n, C), with NaN in rows without a label."""


@dataclass(frozen=True)
class Probe:
    """A fitted probe, in float64."""

    mean: Float64
    """(T,), taken off the features."""
    scale: float | Float64
    """Divides them then: a number, or one for each column."""
    weights: Float64
    """(T, C), for features that are centred and scaled so."""
    offset: Float64
    """(C,), taken off the product: the prediction for the labelled rows' mean."""
    prior: Float64
    """(C,), the mean of the targets."""
    r2: float
    """The leave-one-out R2 with the best ridge."""
    ridge: float
    least_r2: float = LEAST_R2
    """R2 that noise may reach by chance, with these rows."""

    def predict(self, features: ArrayLike) -> Float64:
        """Predictions (N, C) for features (N, T), without the prior."""
        return (np.asarray(features, np.float64) - self.mean) / self.scale @ self.weights - self.offset

    @property
    def is_useful(self) -> bool:
        """Whether the features say more about the labels than noise may seem to."""
        return self.r2 > self.least_r2


def ridge_probe(
    features: ArrayLike, targets: ArrayLike, *, mean: ArrayLike | None = None, scale: float | None = None
) -> Probe:
    """The probe of labelled rows: ``features`` (n, T) and ``targets`` (n, C), one-hot classes, 0/1 columns or numbers.

    ``mean`` (T,) is the mean of all train rows and ``scale`` the root-mean-square of their distances from it; without them, the
    same of these rows.
    """
    x_nT, y_nC = np.asarray(features), np.asarray(targets)
    if y_nC.ndim != 2:
        raise ValueError(f"targets must have shape (rows, outputs), got {y_nC.shape}.")
    if not len(y_nC):
        raise ValueError("A probe needs at least one row, got none.")

    def batches() -> Iterator[tuple[ArrayLike, ArrayLike]]:
        yield x_nT, y_nC

    return fit_probe(batches, [x_nT.shape[-1]], y_nC.shape[1], mean=mean, scale=scale)


def fit_probe(
    batches: Batches,
    dims: Sequence[int],
    num_outputs: int,
    *,
    mean: ArrayLike | None = None,
    scale: float | None = None,
) -> Probe:
    """`ridge_probe` of the labelled ones of all train rows, in two passes over ``batches``; holds T x T numbers at most.

    ``dims`` are the widths of blocks of columns that get the same scale each, one block for one teacher. Without a labelled row
    the probe explains nothing.
    """
    statistics = sum_rows(batches, sum(dims), num_outputs)
    return solve_probe(statistics, batches, dims, mean=mean, scale=scale)


def sum_rows(batches: Batches, feature_dim: int, num_outputs: int) -> ProbeStatistics:
    """The first of the two passes."""
    statistics = ProbeStatistics(feature_dim, num_outputs)
    for features, targets in batches():
        statistics.update(features, targets)
    return statistics


def solve_probe(
    statistics: ProbeStatistics,
    batches: Batches,
    dims: Sequence[int],
    *,
    mean: ArrayLike | None = None,
    scale: float | None = None,
) -> Probe:
    """The second: the probe of the rows that ``statistics`` sums up."""
    mean_T = statistics.mean if mean is None else np.asarray(mean, np.float64)
    scale_T = np.full(sum(dims), scale, np.float64) if scale is not None else statistics.scale(dims)
    solve = _solve_dual if statistics.num_labelled <= sum(dims) else _solve_primal
    weights_TC, ridge, gains = solve(statistics, batches, scale_T)
    r2, least_r2 = statistics.share(gains)
    return Probe(
        mean=mean_T,
        scale=float(scale_T[0]) if len(dims) == 1 else scale_T,
        weights=weights_TC,
        offset=(statistics.labelled_mean - mean_T) / scale_T @ weights_TC,
        prior=statistics.prior,
        r2=r2,
        ridge=ridge,
        least_r2=least_r2,
    )


def _solve_dual(statistics: ProbeStatistics, batches: Batches, scale_T: Float64) -> tuple[Float64, float, Float64]:
    """Weights (T, C), the best ridge and its gains, from the n x n products of n <= T labelled rows."""
    shape = statistics.cross_TC.shape
    parts = [labelled(*chunk) for features, targets in batches() for chunk in float64_chunks(features, targets, *shape)]
    x_nT, y_nC = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if not len(x_nT):
        return np.zeros(shape), float(RIDGES[-1]), np.zeros(2)
    by_mean_n = statistics.errors_of_mean(y_nC)
    x_nT, y_nC = (x_nT - statistics.labelled_mean) / scale_T, y_nC - statistics.prior
    n = len(x_nT)
    kernel_nn = x_nT @ x_nT.T
    above_all = 2 * np.trace(kernel_nn) + 1  # makes the constant direction the last eigenvector, which is dropped
    eigenvalues, vectors = np.linalg.eigh(kernel_nn + above_all / n)
    s, u = np.maximum(eigenvalues[:-1], 0), vectors[:, :-1]
    z = u.T @ y_nC
    gains = np.zeros((len(RIDGES), 2))
    for number, ridge in enumerate(RIDGES if n > 1 else ()):
        q = ridge * n / (s + ridge * n)
        errors = u @ (q[:, None] * z) / (u**2 @ q)[:, None]
        gains[number] = _sums(by_mean_n - np.square(errors).sum(1))
    best = int(np.argmax(gains[:, 0]))
    return x_nT.T @ (u @ (z / (s + RIDGES[best] * n)[:, None])), float(RIDGES[best]), gains[best]


def _solve_primal(statistics: ProbeStatistics, batches: Batches, scale_T: Float64) -> tuple[Float64, float, Float64]:
    """The same from L'L and L'Y, with one pass over the rows for their errors."""
    gram_TT, cross_TC = statistics.centred()
    n, mean_T = statistics.num_labelled, statistics.labelled_mean
    s, v_TT = np.linalg.eigh(gram_TT / np.outer(scale_T, scale_T))
    z = v_TT.T @ (cross_TC / scale_T[:, None])
    inverses = [1 / (np.maximum(s, 0) + ridge * n) for ridge in RIDGES]
    gains = np.zeros((len(RIDGES), 2))
    for features, targets in batches():
        for chunk in float64_chunks(features, targets, *cross_TC.shape):
            x_nT, y_nC = labelled(*chunk)
            by_mean_n, rows = statistics.errors_of_mean(y_nC), (x_nT - mean_T) / scale_T @ v_TT
            for number, inverse in enumerate(inverses):
                residual = y_nC - statistics.prior - rows @ (inverse[:, None] * z)
                errors = residual / (1 - 1 / n - rows**2 @ inverse)[:, None]
                gains[number] += _sums(by_mean_n - np.square(errors).sum(1))
    best = int(np.argmax(gains[:, 0]))
    return v_TT @ (inverses[best][:, None] * z), float(RIDGES[best]), gains[best]


def _sums(x_n: Float64) -> Float64:
    return np.array([x_n.sum(), np.square(x_n).sum()])
