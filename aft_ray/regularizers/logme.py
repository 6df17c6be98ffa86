"""LogME (arXiv 2102.11005): how well a linear model on given features explains the labels, without training one.

For N samples with features X (N, D) and, class by class, targets y in {0, 1}, Bayesian linear regression has the prior
w ~ N(0, 1/alpha) and the noise 1/beta. With X'X = V diag(s) V' and z = V'X'y everything about the best alpha and beta
follows from s, z, N and y'y, so X itself is never needed: X'X, X'y and the class counts add up over shards, over teachers'
shards on different nodes just as well. Where N <= D, XX' = U diag(s) U' is the smaller matrix, and V = X'U diag(s)^(-1/2): few
samples are kept as they are. With t = alpha / beta the fixed point iterates

    gamma = sum s / (s + t)        |w|^2 = sum (z / (s + t))^2        |y - Xw|^2 = y'y - sum z^2 (s + 2t) / (s + t)^2
    alpha = gamma / |w|^2          beta = (N - gamma) / |y - Xw|^2

and the log evidence is (D log alpha + N log beta - sum log(alpha + beta s) - beta |y - Xw|^2 - alpha |w|^2 - N log 2 pi) / 2.
The score is its mean over classes, over N; the weights are the posterior means V (z / (s + t)).
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64: TypeAlias = NDArray[np.float64]

MAX_ITERATIONS = 11
TOLERANCE = 1e-3  # relative change of t that ends the iteration
EPSILON = 1e-5  # added to both squared lengths that are divided by
CHUNK_ROWS = 4096  # rows converted to float64 at a time


class LogMEStatistics:
    """The sums over samples that LogME is a function of: X'X, X'y of every class, and class counts, in float64.

    Up to D samples it keeps X instead of X'X. Update it shard by shard, add up different shards (``a + b``), then `solve`.
    """

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        self.rows_nD: list[Float64] = []
        self.gram_DD: Float64 | None = None
        self.class_sums_CD: Float64 = np.zeros((num_classes, feature_dim))
        self.class_counts_C: Float64 = np.zeros(num_classes)

    def update(self, features: ArrayLike, labels: ArrayLike) -> None:
        """Add samples: ``features`` (n, D) of any floating type, ``labels`` (n,) integers; label -1 means unlabelled."""
        features, labels = np.asarray(features), np.asarray(labels)
        num_classes, feature_dim = self.class_sums_CD.shape
        if features.ndim != 2 or features.shape[1] != feature_dim:
            raise ValueError(f"features must have shape (rows, {feature_dim}), got {features.shape}.")
        if labels.shape != features.shape[:1]:
            raise ValueError(f"labels must have shape ({features.shape[0]},), one per row, got {labels.shape}.")
        if labels.size and not -1 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(f"labels must be -1 to {num_classes - 1}, got {labels.min()} to {labels.max()}.")
        for start in range(0, len(labels), CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            labelled = labels[chunk] >= 0
            x_nD = features[chunk][labelled].astype(np.float64)
            if not np.isfinite(x_nD).all():
                raise ValueError(
                    f"features must be finite, got NaN or infinity in rows {start} to {start + len(labelled) - 1}."
                )
            y_nC = (labels[chunk][labelled][:, None] == np.arange(num_classes)).astype(np.float64)
            self.class_sums_CD += y_nC.T @ x_nD
            self.class_counts_C += y_nC.sum(0)
            self.rows_nD.append(x_nD)
            self._shorten()

    def _shorten(self) -> None:
        """Sums the kept samples up where there are more than features, or a sum exists already."""
        feature_dim = self.class_sums_CD.shape[1]
        if self.gram_DD is None and sum(map(len, self.rows_nD)) <= feature_dim:
            return
        x_nD = np.concatenate(self.rows_nD)
        self.gram_DD = x_nD.T @ x_nD + (0 if self.gram_DD is None else self.gram_DD)
        self.rows_nD = []

    def __add__(self, other: "LogMEStatistics") -> "LogMEStatistics":
        if self.class_sums_CD.shape != other.class_sums_CD.shape:
            raise ValueError(
                f"Only statistics of the same (classes, width) can be added, got {self.class_sums_CD.shape} and "
                f"{other.class_sums_CD.shape}."
            )
        total = LogMEStatistics(self.class_sums_CD.shape[1], self.class_sums_CD.shape[0])
        total.class_sums_CD = self.class_sums_CD + other.class_sums_CD
        total.class_counts_C = self.class_counts_C + other.class_counts_C
        grams = [part.gram_DD for part in (self, other) if part.gram_DD is not None]
        total.gram_DD = np.sum(grams, axis=0) if grams else None
        total.rows_nD = [*self.rows_nD, *other.rows_nD]
        if total.rows_nD:
            total._shorten()
        return total

    def of(self, columns: ArrayLike) -> "LogMEStatistics":
        """The statistics of some of the features: ``columns`` are their indices."""
        chosen = np.asarray(columns)
        part = LogMEStatistics(len(chosen), len(self.class_counts_C))
        part.class_sums_CD = self.class_sums_CD[:, chosen]
        part.class_counts_C = self.class_counts_C
        if self.gram_DD is not None:
            part.gram_DD = self.gram_DD[np.ix_(chosen, chosen)]
        else:
            part.rows_nD = [x_nD[:, chosen] for x_nD in self.rows_nD]
            part._shorten()
        return part

    def solve(self) -> tuple[float, Float64]:
        """The score, higher is better, and the weights (C, D). Classes without a sample weigh zero and do not score."""
        num_samples = int(self.class_counts_C.sum())
        if num_samples == 0:
            raise ValueError("LogME needs at least one labelled sample, got none.")
        eigenvalues, vectors_DK = self._spectrum()
        evidences = []
        weights_CD = np.zeros_like(self.class_sums_CD)
        for label in np.flatnonzero(self.class_counts_C):
            projected_K = vectors_DK.T @ self.class_sums_CD[label]
            evidence, ridge = _evidence(
                eigenvalues, projected_K, self.class_counts_C[label], num_samples, self.class_sums_CD.shape[1]
            )
            evidences.append(evidence / num_samples)
            weights_CD[label] = vectors_DK @ (projected_K / (eigenvalues + ridge))
        return float(np.mean(evidences)), weights_CD

    def _spectrum(self) -> tuple[Float64, Float64]:
        """Eigenvalues (K,) of X'X that are not zero, and their vectors (D, K)."""
        if self.gram_DD is not None:
            return _positive_spectrum(self.gram_DD)
        x_nD = np.concatenate(self.rows_nD)
        eigenvalues, vectors_nK = _positive_spectrum(x_nD @ x_nD.T)
        return eigenvalues, x_nD.T @ vectors_nK / np.sqrt(eigenvalues)


def _positive_spectrum(matrix: Float64) -> tuple[Float64, Float64]:
    eigenvalues, vectors = np.linalg.eigh(matrix)
    kept = eigenvalues > len(eigenvalues) * np.finfo(np.float64).eps * max(eigenvalues[-1], 0.0)
    return eigenvalues[kept], vectors[:, kept]


def log_me(features: ArrayLike, labels: ArrayLike) -> tuple[float, Float64]:
    """LogME's score and weights (C, D), float64, of ``features`` (N, D) for ``labels`` (N,) in 0 ... C - 1."""
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or labels.size == 0:
        raise ValueError(f"features must have shape (rows, width) with at least one row, got {features.shape}.")
    statistics = LogMEStatistics(features.shape[1], int(labels.max()) + 1)
    statistics.update(features, labels)
    return statistics.solve()


def _evidence(s: Float64, z: Float64, y_square: float, num_samples: int, feature_dim: int) -> tuple[float, float]:
    """Largest log evidence for one class, and the ratio t its posterior mean is for. Letters as in the module's docstring.

    As in the authors' code ``t`` is the one the last iteration started from, and D counts directions without any spread.
    """
    alpha = beta = 1.0
    for _ in range(MAX_ITERATIONS):
        t = alpha / beta
        gamma = np.sum(s / (s + t))
        w_square = np.sum((z / (s + t)) ** 2)
        residual_square = y_square - np.sum(z**2 * (s + 2 * t) / (s + t) ** 2)
        alpha = gamma / (w_square + EPSILON)
        beta = (num_samples - gamma) / (residual_square + EPSILON)
        if abs(alpha / beta - t) <= TOLERANCE * t:
            break
    with np.errstate(divide="ignore"):  # features that are all 0 explain nothing: alpha 0, score -infinity
        log_alpha = np.log(alpha)
    evidence = feature_dim * log_alpha + num_samples * np.log(beta) - np.sum(np.log(alpha + beta * s))
    evidence -= beta * residual_square + alpha * w_square + num_samples * np.log(2 * np.pi)
    return float(evidence / 2), float(t)
