"""Sums over the rows of a train split that a ridge probe, and the alignment of features and labels, are functions of."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from aft_ray.regularizers.logme import CHUNK_ROWS, Float64

LEAST_R2, CONFIDENCE = 0.02, 0.975
"""A teacher is left out if its R2 is at most `LEAST_R2`, or may be 0 by a one-sided t-test of the rows' gains. Noise stays
below .02 with ten classes; with two or three classes of a few rows only the test finds it out."""


class ProbeStatistics:
    """Moments of all rows, and of the labelled rows L'L, L'Y and sums that are weighted by the rows' squared norms; in float64.

    They are taken about the mean of the first rows, so that a large common offset cancels before it is squared.
    """

    def __init__(self, feature_dim: int, num_outputs: int) -> None:
        self.origin_T: Float64 | None = None
        self.num_rows = self.num_labelled = 0
        self.sums_T, self.squares_T = np.zeros(feature_dim), np.zeros(feature_dim)
        self.labelled_sums_T, self.target_sums_C = np.zeros(feature_dim), np.zeros(num_outputs)
        self.gram_TT = np.zeros((feature_dim, feature_dim))
        self.cross_TC = np.zeros((feature_dim, num_outputs))
        self.target_squares_C = np.zeros(num_outputs)
        self.norms_by_target_C, self.norm_weighted_T, self.squared_norms = (
            np.zeros(num_outputs),
            np.zeros(feature_dim),
            0.0,
        )

    def update(self, features: ArrayLike, targets: ArrayLike) -> None:
        """Add rows: ``features`` (n, T) of any floating type, ``targets`` (n, C), NaN in rows without a label."""
        for x_nT, y_nC in float64_chunks(features, targets, *self.cross_TC.shape):
            if self.origin_T is None:
                self.origin_T = x_nT.mean(0)
            x_nT -= self.origin_T
            self.num_rows += len(x_nT)
            self.sums_T += x_nT.sum(0)
            self.squares_T += np.square(x_nT).sum(0)
            x_nT, y_nC = labelled(x_nT, y_nC)
            self.num_labelled += len(x_nT)
            self.labelled_sums_T += x_nT.sum(0)
            self.target_sums_C += y_nC.sum(0)
            self.gram_TT += x_nT.T @ x_nT
            self.cross_TC += x_nT.T @ y_nC
            self.target_squares_C += np.square(y_nC).sum(0)
            norms_n = np.square(x_nT).sum(1)
            self.norms_by_target_C += norms_n @ y_nC
            self.norm_weighted_T += norms_n @ x_nT
            self.squared_norms += float(norms_n @ norms_n)

    @property
    def mean(self) -> Float64:
        """Mean (T,) of all rows."""
        assert self.origin_T is not None, "there are rows"
        return self.origin_T + self.sums_T / self.num_rows

    def scale(self, dims: Sequence[int]) -> Float64:
        """Root-mean-square distance of all rows from their mean, in every block of ``dims`` columns by itself, for each column.

        Times the root of the number of blocks, so that features divided by it have a distance of 1 in all. 1 where it is 0.
        """
        variance_T = self.squares_T / self.num_rows - np.square(self.sums_T / self.num_rows)
        blocks = np.split(variance_T, np.cumsum(dims)[:-1])
        squares = [len(dims) * max(0.0, float(block.sum())) for block in blocks]
        return np.repeat([np.sqrt(square) if square else 1.0 for square in squares], dims)

    @property
    def labelled_mean(self) -> Float64:
        """Mean (T,) of the labelled rows."""
        assert self.origin_T is not None, "there are rows"
        return self.origin_T + self.labelled_sums_T / max(1, self.num_labelled)

    @property
    def prior(self) -> Float64:
        """Mean (C,) of the targets."""
        return self.target_sums_C / max(1, self.num_labelled)

    def centred(self) -> tuple[Float64, Float64]:
        """L'L (T, T) and L'Y (T, C), of features as they are."""
        gram_TT = self.gram_TT - np.outer(self.labelled_sums_T, self.labelled_sums_T) / max(1, self.num_labelled)
        return gram_TT, self.cross_TC - np.outer(self.labelled_sums_T, self.prior)

    def errors_of_mean(self, y_nC: Float64) -> Float64:
        """Squared leave-one-out errors (n,) that the mean of the other targets makes in rows with the targets ``y_nC``."""
        factor = self.num_labelled / max(1, self.num_labelled - 1)
        return np.square((y_nC - self.prior) * factor).sum(1)

    def share(self, gains: Float64) -> tuple[float, float]:
        """R2, and the least R2 to believe. ``gains``: how much lower than the mean's each row's squared error is, as (sum, sum of
        squares)."""
        from scipy.special import stdtrit  # Student's t; half a second that a run without a probe need not wait

        n = self.num_labelled
        whole = float(np.sum(self.target_squares_C - n * self.prior**2)) * (n / max(1, n - 1)) ** 2
        if n < 2 or whole <= 0:
            return 0.0, LEAST_R2
        total, squares = gains
        deviation = np.sqrt(max(0.0, squares - total**2 / n) * n / (n - 1))  # of the sum
        return float(total / whole), max(LEAST_R2, float(stdtrit(n - 1, CONFIDENCE) * deviation / whole))


def labelled(x_nT: Float64, y_nC: Float64) -> tuple[Float64, Float64]:
    there = ~np.isnan(y_nC).any(1)
    return x_nT[there], y_nC[there]


def float64_chunks(
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
