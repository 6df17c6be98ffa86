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

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from aft_ray.regularizers.logme import CHUNK_ROWS, Float64

RIDGES: Float64 = 10.0 ** np.arange(-4, 3.5, 0.5)
"""The ridges r to choose from; features have a root-mean-square norm of 1."""

LEAST_R2, CONFIDENCE = 0.02, 0.975
"""A teacher is left out if its R2 is at most `LEAST_R2`, or may be 0 by a one-sided t-test of the rows' gains. Noise stays
below .02 with ten classes; with two or three classes of a few rows only the test finds it out."""

Batches = Callable[[], Iterable[tuple[ArrayLike, ArrayLike]]]
"""Starts a pass over the train rows: features (n, T) and targets (n, C), whose rows are NaN where there is no label."""


@dataclass(frozen=True)
class Probe:
    """A fitted probe. ``weights`` (T, C) are for features minus ``mean`` (T,), divided by ``scale``; ``offset`` (C,) is what the
    labelled rows' mean gives; ``prior`` (C,) the mean of their targets; ``r2`` the leave-one-out R2 at ``ridge``, the best r;
    ``least_r2`` what noise may seem to explain, from `LEAST_R2` on."""

    mean: Float64
    scale: float
    weights: Float64
    offset: Float64
    prior: Float64
    r2: float
    ridge: float
    least_r2: float = LEAST_R2

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

    ``mean`` (T,) and ``scale`` are those of all train rows: their mean, and the root-mean-square of their distances from it;
    of these rows where not given.
    """
    x_nT, y_nC = np.asarray(features), np.asarray(targets)
    if y_nC.ndim != 2:
        raise ValueError(f"targets must have shape (rows, outputs), got {y_nC.shape}.")

    def batches() -> Iterator[tuple[ArrayLike, ArrayLike]]:
        yield x_nT, y_nC

    return fit_probe(batches, x_nT.shape[-1], y_nC.shape[1], mean=mean, scale=scale)


def fit_probe(
    batches: Batches,
    feature_dim: int,
    num_outputs: int,
    *,
    mean: ArrayLike | None = None,
    scale: float | None = None,
) -> Probe:
    """`ridge_probe` of the labelled ones of all train rows, in two passes over ``batches``; holds T x T numbers at most.

    ``mean`` and ``scale`` are those of all rows where not given.
    """
    statistics = ProbeStatistics(feature_dim, num_outputs)
    for features, targets in batches():
        statistics.update(features, targets)
    if statistics.num_labelled == 0:
        raise ValueError("A probe needs at least one labelled row, got none.")
    mean_T = statistics.mean if mean is None else np.asarray(mean, np.float64)
    scale = statistics.scale if scale is None else float(scale)
    solve = _solve_dual if statistics.num_labelled <= feature_dim else _solve_primal
    weights_TC, ridge, gains = solve(statistics, batches, scale)
    r2, least_r2 = statistics.share(gains)
    return Probe(
        mean=mean_T,
        scale=scale,
        weights=weights_TC,
        offset=(statistics.labelled_mean - mean_T) / scale @ weights_TC,
        prior=statistics.prior,
        r2=r2,
        ridge=ridge,
        least_r2=least_r2,
    )


class ProbeStatistics:
    """Sums over rows that a probe of n > T rows is a function of, in float64: moments of all rows, and L'L, L'Y of labelled ones.

    They are taken about the mean of the first rows, so that what all rows share cancels before it is squared.
    """

    def __init__(self, feature_dim: int, num_outputs: int) -> None:
        self.origin_T: Float64 | None = None
        self.num_rows = self.num_labelled = 0
        self.sums_T, self.square_sum = np.zeros(feature_dim), 0.0
        self.labelled_sums_T, self.target_sums_C = np.zeros(feature_dim), np.zeros(num_outputs)
        self.gram_TT = np.zeros((feature_dim, feature_dim))
        self.cross_TC = np.zeros((feature_dim, num_outputs))
        self.target_squares_C = np.zeros(num_outputs)

    def update(self, features: ArrayLike, targets: ArrayLike) -> None:
        """Add rows: ``features`` (n, T) of any floating type, ``targets`` (n, C), NaN in rows without a label."""
        for x_nT, y_nC in _chunks(features, targets, *self.cross_TC.shape):
            if self.origin_T is None:
                self.origin_T = x_nT.mean(0)
            x_nT -= self.origin_T
            self.num_rows += len(x_nT)
            self.sums_T += x_nT.sum(0)
            self.square_sum += float(np.square(x_nT).sum())
            x_nT, y_nC = _labelled(x_nT, y_nC)
            self.num_labelled += len(x_nT)
            self.labelled_sums_T += x_nT.sum(0)
            self.target_sums_C += y_nC.sum(0)
            self.gram_TT += x_nT.T @ x_nT
            self.cross_TC += x_nT.T @ y_nC
            self.target_squares_C += np.square(y_nC).sum(0)

    @property
    def mean(self) -> Float64:
        """Mean (T,) of all rows."""
        assert self.origin_T is not None, "there are rows"
        return self.origin_T + self.sums_T / self.num_rows

    @property
    def scale(self) -> float:
        """Root-mean-square distance of all rows from their mean; 1 where there is none."""
        square = self.square_sum / self.num_rows - np.square(self.sums_T / self.num_rows).sum()
        return float(np.sqrt(square)) if square > 0 else 1.0

    @property
    def labelled_mean(self) -> Float64:
        """Mean (T,) of the labelled rows."""
        assert self.origin_T is not None, "there are rows"
        return self.origin_T + self.labelled_sums_T / self.num_labelled

    @property
    def prior(self) -> Float64:
        """Mean (C,) of the targets."""
        return self.target_sums_C / self.num_labelled

    def centred(self) -> tuple[Float64, Float64]:
        """L'L (T, T) and L'Y (T, C), of features as they are."""
        gram_TT = self.gram_TT - np.outer(self.labelled_sums_T, self.labelled_sums_T) / self.num_labelled
        return gram_TT, self.cross_TC - np.outer(self.labelled_sums_T, self.prior)

    def errors_of_mean(self, y_nC: Float64) -> Float64:
        """Squared leave-one-out errors (n,) that the mean of the other targets makes in rows with the targets ``y_nC``."""
        factor = self.num_labelled / max(1, self.num_labelled - 1)
        return np.square((y_nC - self.prior) * factor).sum(1)

    def share(self, gains: Float64) -> tuple[float, float]:
        """R2, and the least R2 to believe. ``gains``: how much lower than the mean's each row's squared error is, as (sum, sum of
        squares)."""
        n = self.num_labelled
        whole = float(np.sum(self.target_squares_C - n * self.prior**2)) * (n / max(1, n - 1)) ** 2
        if n < 2 or whole <= 0:
            return 0.0, LEAST_R2
        total, squares = gains
        deviation = np.sqrt(max(0.0, squares - total**2 / n) * n / (n - 1))  # of the sum
        return float(total / whole), max(LEAST_R2, float(stdtrit(n - 1, CONFIDENCE) * deviation / whole))


def _solve_dual(statistics: ProbeStatistics, batches: Batches, scale: float) -> tuple[Float64, float, Float64]:
    """Weights (T, C), the best ridge and its gains, from the n x n products of n <= T labelled rows."""
    shape = statistics.cross_TC.shape
    parts = [_labelled(*chunk) for features, targets in batches() for chunk in _chunks(features, targets, *shape)]
    x_nT, y_nC = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    by_mean_n = statistics.errors_of_mean(y_nC)
    x_nT, y_nC = (x_nT - x_nT.mean(0)) / scale, y_nC - y_nC.mean(0)
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


def _solve_primal(statistics: ProbeStatistics, batches: Batches, scale: float) -> tuple[Float64, float, Float64]:
    """The same from L'L and L'Y, with one pass over the rows for their errors."""
    gram_TT, cross_TC = statistics.centred()
    n, mean_T = statistics.num_labelled, statistics.labelled_mean
    s, v_TT = np.linalg.eigh(gram_TT / scale**2)
    z = v_TT.T @ cross_TC / scale
    inverses = [1 / (np.maximum(s, 0) + ridge * n) for ridge in RIDGES]
    gains = np.zeros((len(RIDGES), 2))
    for features, targets in batches():
        for chunk in _chunks(features, targets, *cross_TC.shape):
            x_nT, y_nC = _labelled(*chunk)
            by_mean_n, rows = statistics.errors_of_mean(y_nC), (x_nT - mean_T) / scale @ v_TT
            for number, inverse in enumerate(inverses):
                residual = y_nC - statistics.prior - rows @ (inverse[:, None] * z)
                errors = residual / (1 - 1 / n - rows**2 @ inverse)[:, None]
                gains[number] += _sums(by_mean_n - np.square(errors).sum(1))
    best = int(np.argmax(gains[:, 0]))
    return v_TT @ (inverses[best][:, None] * z), float(RIDGES[best]), gains[best]


def _sums(x_n: Float64) -> Float64:
    return np.array([x_n.sum(), np.square(x_n).sum()])


def _labelled(x_nT: Float64, y_nC: Float64) -> tuple[Float64, Float64]:
    there = ~np.isnan(y_nC).any(1)
    return x_nT[there], y_nC[there]


def _chunks(
    features: ArrayLike, targets: ArrayLike, feature_dim: int, num_outputs: int
) -> Iterator[tuple[Float64, Float64]]:
    """Copies in float64, some rows at a time, so that narrow features never lie in memory as a whole."""
    x_nT, y_nC = np.asarray(features), np.asarray(targets)
    if x_nT.ndim != 2 or x_nT.shape[1] != feature_dim:
        raise ValueError(f"features must have shape (rows, {feature_dim}), got {x_nT.shape}.")
    if y_nC.shape != (len(x_nT), num_outputs):
        raise ValueError(f"targets must have shape ({len(x_nT)}, {num_outputs}), a row each, got {y_nC.shape}.")
    for start in range(0, len(x_nT), CHUNK_ROWS):
        chunk = x_nT[start : start + CHUNK_ROWS].astype(np.float64)
        if not np.isfinite(chunk).all():
            raise ValueError(
                f"features must be finite, got NaN or infinity in rows {start} to {start + len(chunk) - 1}."
            )
        yield chunk, y_nC[start : start + CHUNK_ROWS].astype(np.float64)
