"""How far a kernel of features shows the classes: debiased centred kernel alignment with the kernel of the labels.

K_ij = x_i . x_j and L_ij = 1 where i and j are of one class. With the diagonals set to zero, the unbiased estimate of the
Hilbert-Schmidt independence criterion (Song et al., 2012) is, but for a factor that cancels,

    H(K, L) = tr(KL) + (1'K1)(1'L1) / ((n-1)(n-2)) - 2 (1'KL1) / (n-2)        alignment = H(K, L) / sqrt(H(K, K) H(L, L))

0 on average where the features have nothing to do with the classes, whatever their width, and 1 where the kernels are equal. For
linear kernels of features and classes every term is a function of sums over rows, so no n x n matrix is needed.
"""

import math

import numpy as np

from aft_ray.regularizers.logme import Float64
from aft_ray.regularizers.probe_statistics import ProbeStatistics

FEWEST = 4
"""Rows that the estimate needs."""


def kernel_alignment(k_nn: Float64, l_nn: Float64) -> float:
    """The alignment of two symmetric kernels of the same rows; NaN for fewer than four rows, or where one shows nothing."""
    n = len(k_nn)
    if n < FEWEST:
        return math.nan
    k_nn, l_nn = (kernel - np.diag(np.diag(kernel)) for kernel in (k_nn, l_nn))

    def criterion(k_nn: Float64, l_nn: Float64) -> float:
        k_n, l_n = k_nn.sum(1), l_nn.sum(1)
        return _criterion(n, float((k_nn * l_nn).sum()), float(k_n.sum()), float(l_n.sum()), float(k_n @ l_n))

    own = criterion(k_nn, k_nn) * criterion(l_nn, l_nn)
    return criterion(k_nn, l_nn) / math.sqrt(own) if own > 0 else math.nan


def label_alignment(statistics: ProbeStatistics) -> float:
    """The alignment over labelled rows with one-hot targets; NaN for fewer than four rows, one class or equal rows."""
    n, counts_C = statistics.num_labelled, statistics.target_sums_C
    if n < FEWEST or counts_C.max() == n:
        return math.nan
    sums_T, class_sums_TC = statistics.labelled_sums_T, statistics.cross_TC
    class_norms_C, squared_norms = statistics.norms_by_target_C, statistics.squared_norms
    norms = float(class_norms_C.sum())
    one_K_one, one_L_one = float(sums_T @ sums_T) - norms, float(counts_C @ counts_C) - n
    tr_KL = float(np.square(class_sums_TC).sum()) - norms
    one_KL_one = float((counts_C - 1) @ (sums_T @ class_sums_TC - class_norms_C))
    tr_KK = float(np.square(statistics.gram_TT).sum()) - squared_norms
    one_KK_one = float(sums_T @ statistics.gram_TT @ sums_T - 2 * sums_T @ statistics.norm_weighted_T) + squared_norms
    one_LL_one = float(counts_C @ np.square(counts_C - 1))

    of_K = _criterion(n, tr_KK, one_K_one, one_K_one, one_KK_one)
    of_L = _criterion(n, one_L_one, one_L_one, one_L_one, one_LL_one)  # entries of L are 0 or 1: tr(LL) = 1'L1
    own = of_K * of_L
    return _criterion(n, tr_KL, one_K_one, one_L_one, one_KL_one) / math.sqrt(own) if own > 0 else math.nan


def _criterion(n: int, trace: float, left: float, right: float, both: float) -> float:
    return trace + left * right / ((n - 1) * (n - 2)) - 2 * both / (n - 2)
