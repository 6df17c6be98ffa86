"""Debiased alignment of features with classes, from sums: equal to its formula, blind to shifts and to noise."""

import numpy as np
import pytest
from numpy.typing import NDArray

from aft_ray.regularizers.alignment import kernel_alignment, label_alignment
from aft_ray.regularizers.probe import sum_rows

Float64 = NDArray[np.float64]


def aligned(features: Float64, classes: NDArray[np.int64], num_parts: int = 1) -> float:
    targets = np.eye(classes.max() + 1)[classes]
    rows = [*zip(np.array_split(features, num_parts), np.array_split(targets, num_parts), strict=True)]
    return label_alignment(sum_rows(lambda: rows, features.shape[1], targets.shape[1]))


def by_the_formula(features: Float64, classes: NDArray[np.int64]) -> float:
    n, one = len(features), np.ones(len(features))
    kernels = [features @ features.T, (classes[:, None] == classes).astype(float)]
    for kernel in kernels:
        np.fill_diagonal(kernel, 0)

    def criterion(k: Float64, m: Float64) -> float:
        sums = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float(np.trace(k @ m) + sums - 2 * (one @ k @ m @ one) / (n - 2))

    k, m = kernels
    return criterion(k, m) / np.sqrt(criterion(k, k) * criterion(m, m))


@pytest.mark.parametrize(("n", "width"), [(30, 5), (30, 100), (5, 3)])
def test_sums_over_shards_give_the_formula(n: int, width: int) -> None:
    random, classes = np.random.default_rng(0), np.arange(n) % 3
    features = random.normal(size=(n, width)) + classes[:, None]
    expected = by_the_formula(features, classes)
    assert aligned(features, classes, num_parts=3) == pytest.approx(expected, abs=1e-9)
    assert aligned(features + 1000, classes) == pytest.approx(expected, abs=1e-6)
    same_nn = (classes[:, None] == classes).astype(float)
    assert kernel_alignment(features @ features.T, same_nn) == pytest.approx(expected, abs=1e-9)


def test_noise_is_not_aligned_however_wide_it_is() -> None:
    """The usual estimate is about .8 here: 200 dimensions of 60 rows have something in common with anything."""
    classes = np.arange(60) % 6
    found = [aligned(np.random.default_rng(seed).normal(size=(60, 200)), classes) for seed in range(20)]
    assert abs(np.mean(found)) < 0.02


def test_class_means_alone_are_fully_aligned() -> None:
    classes = np.arange(40) % 2
    assert aligned(np.array([[1.0, 0.0], [0.0, 1.0]])[classes], classes) == pytest.approx(1)


def test_too_few_rows_and_equal_rows_have_no_alignment() -> None:
    assert np.isnan(aligned(np.eye(3), np.arange(3)))
    assert np.isnan(kernel_alignment(np.eye(3), np.eye(3))) and np.isnan(kernel_alignment(np.ones((8, 8)), np.eye(8)))
    assert np.isnan(aligned(np.ones((8, 3)), np.arange(8) % 2))
    assert np.isnan(aligned(np.random.default_rng(0).normal(size=(8, 3)), np.zeros(8, int)))
