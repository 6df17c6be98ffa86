"""The ridge probe: equal to refitting without each row, never fooled by noise, the same in passes over shards as at once."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from aft_ray.regularizers import Probe, ridge_probe
from aft_ray.regularizers.probe import RIDGES, fit_probe

Float64 = NDArray[np.float64]


def samples(n: int, width: int, seed: int = 0) -> tuple[Float64, Float64]:
    """Features that know something of three classes, with a mean far from zero, and one-hot targets."""
    random = np.random.default_rng(seed)
    classes = np.arange(n) % 3
    features = 3 * random.normal(size=(n, width)) + 5
    features[:, : max(1, width // 5)] += 4 * classes[:, None]
    return features, np.eye(3)[classes]


def ridge_fit(g_nT: Float64, y_nC: Float64, penalty: float) -> tuple[Float64, Float64]:
    """Weights and mean of ridge regression, in the textbook form."""
    mean_T, centred = g_nT.mean(0), g_nT - g_nT.mean(0)
    matrix = centred.T @ centred + penalty * np.eye(g_nT.shape[1])
    return np.linalg.solve(matrix, centred.T @ (y_nC - y_nC.mean(0))), mean_T


def refitted_r2(features: Float64, targets: Float64, probe: Probe, ridge: float) -> float:
    """R2 of n probes, each fitted without one row, and of the other rows' mean."""
    g_nT, n = (features - probe.mean) / probe.scale, len(features)
    errors, by_mean = [], []
    for row in range(n):
        others = np.arange(n) != row
        weights, mean_T = ridge_fit(g_nT[others], targets[others], ridge * n)
        by_mean.append(targets[row] - targets[others].mean(0))
        errors.append(by_mean[-1] - (g_nT[row] - mean_T) @ weights)
    return float(1 - np.mean(np.square(errors)) / np.mean(np.square(by_mean)))


@pytest.mark.parametrize(("n", "width"), [(12, 40), (25, 25), (26, 25), (60, 10), (3, 5), (4, 3)])
def test_leave_one_out_equals_fitting_n_times(n: int, width: int) -> None:
    features, targets = samples(n, width)
    probe = ridge_probe(features, targets)
    by_ridge = [refitted_r2(features, targets, probe, ridge) for ridge in RIDGES]
    assert probe.ridge == RIDGES[np.argmax(by_ridge)]
    assert probe.r2 == pytest.approx(max(by_ridge), abs=1e-9)


@pytest.mark.parametrize(("n", "width"), [(12, 40), (25, 25), (60, 10)])
def test_a_row_that_the_others_say_nothing_about_costs_no_digits(n: int, width: int) -> None:
    """The leverage of such a row is nearly 1: residual over 1 - leverage would be noise over noise."""
    features, targets = samples(n, width)
    features[0] = 1e4
    probe = ridge_probe(features, targets, scale=1.0 if n <= width else None)
    assert probe.r2 == pytest.approx(refitted_r2(features, targets, probe, probe.ridge), rel=1e-9)


@pytest.mark.parametrize(("n", "width"), [(12, 40), (60, 10)])
def test_weights_and_predictions_are_those_of_ridge_regression(n: int, width: int) -> None:
    features, targets = samples(n, width)
    everything, _ = samples(100, width, seed=1)
    mean_T = everything.mean(0)
    scale = float(np.sqrt(np.square(everything - mean_T).sum(1).mean()))
    probe = ridge_probe(features, targets, mean=mean_T, scale=scale)
    g_nT = (features - mean_T) / scale
    weights, own_mean_T = ridge_fit(g_nT, targets, probe.ridge * n)
    np.testing.assert_allclose(probe.weights, weights, atol=1e-9)
    assert probe.weights.dtype == np.float64
    new = (everything - mean_T) / scale
    np.testing.assert_allclose(probe.predict(everything), (new - own_mean_T) @ weights, atol=1e-9)
    np.testing.assert_allclose(probe.prior, targets.mean(0))


@pytest.mark.parametrize(
    ("labels_per_class", "width"), [(2, 600), (5, 600), (10, 600), (47, 600), (5, 40), (10, 40), (47, 40)]
)
def test_noise_explains_nothing(labels_per_class: int, width: int) -> None:
    n = 10 * labels_per_class
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(size=(n, width))
        assert ridge_probe(noise, np.eye(10)[np.arange(n) % 10]).r2 <= 0.02


@pytest.mark.parametrize(("num_classes", "labels_per_class"), [(2, 10), (3, 10), (3, 40), (10, 5)])
def test_permuted_labels_are_found_out_in_nineteen_of_twenty_cases(num_classes: int, labels_per_class: int) -> None:
    """By R2 alone, a third of the cases with two classes of ten rows would pass for knowledge."""
    found = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        classes = np.arange(num_classes * labels_per_class) % num_classes
        features = random.normal(size=(len(classes), 100)) * np.arange(1, 101) ** -0.7
        found.append(ridge_probe(features, np.eye(num_classes)[random.permutation(classes)]).is_useful)
    assert sum(found) <= 0.05 * len(found)


def test_features_that_know_the_classes_are_useful() -> None:
    assert all(ridge_probe(*samples(n, 30)).is_useful for n in (10, 30, 60))


@pytest.mark.parametrize("num_labelled", [20, 70])
def test_passes_over_shards_of_half_precision_give_the_same_probe(num_labelled: int) -> None:
    features, targets = samples(90, 40)
    features = features.astype(np.float16)
    targets[num_labelled:] = np.nan

    def batches() -> Iterator[tuple[ArrayLike, ArrayLike]]:
        for rows in np.array_split(np.arange(90), 4):
            yield features[rows], targets[rows]

    exact, labelled = features.astype(np.float64), slice(num_labelled)
    mean_T = exact.mean(0)
    scale = float(np.sqrt(np.square(exact - mean_T).sum(1).mean()))
    whole = ridge_probe(exact[labelled], targets[labelled], mean=mean_T, scale=scale)
    probe = fit_probe(batches, [40], 3)
    assert (probe.r2, probe.ridge) == (pytest.approx(whole.r2, abs=1e-12), whole.ridge)
    assert probe.scale == pytest.approx(scale, rel=1e-12)
    np.testing.assert_allclose(probe.weights, whole.weights, atol=1e-11)
    np.testing.assert_allclose(probe.predict(features), whole.predict(exact), atol=1e-11)


def test_blocks_of_columns_have_the_same_say_whatever_their_norms() -> None:
    features, targets = samples(60, 12)
    louder = features * np.repeat([1.0, 100.0], 6)

    def fitted(x: Float64) -> Probe:
        return fit_probe(lambda: [(x, targets)], [6, 6], 3)

    assert fitted(louder).r2 == pytest.approx(fitted(features).r2, abs=1e-9)
    np.testing.assert_allclose(fitted(louder).predict(louder), fitted(features).predict(features), atol=1e-9)
    g_nT = (features - fitted(features).mean) / fitted(features).scale
    assert np.square(g_nT).sum(1).mean() == pytest.approx(1)
    assert np.square(g_nT[:, :6]).sum(1).mean() == pytest.approx(0.5)


def test_without_a_labelled_row_nothing_is_explained() -> None:
    probe = fit_probe(lambda: [(np.ones((4, 3)), np.full((4, 2), np.nan))], [3], 2)
    assert (probe.r2, probe.is_useful) == (0, False) and not probe.weights.any()


def test_numbers_and_several_labels_are_targets_too() -> None:
    features, _ = samples(50, 20)
    numbers = features[:, :2] @ np.array([[1.0, 2.0], [0.5, -1.0]])
    assert ridge_probe(features, numbers).r2 > 0.9
    assert ridge_probe(features, (numbers > numbers.mean(0)).astype(np.float32)).r2 > 0.3


@pytest.mark.parametrize(
    ("features", "targets"),
    [
        (np.ones((1, 4)), np.eye(2)[[0]]),
        (np.random.default_rng(0).normal(size=(6, 4)), np.eye(2)[[1] * 6]),
        (np.ones((6, 4)), np.eye(2)[[0, 1] * 3]),
        (np.ones((6, 8)), np.eye(2)[[0, 1] * 3]),
    ],
    ids=["one row", "one class", "equal rows", "fewer equal rows than columns"],
)
def test_where_nothing_can_be_learnt_nothing_is_explained(features: Float64, targets: Float64) -> None:
    probe = ridge_probe(features, targets)
    assert not probe.is_useful and np.isfinite(probe.r2)
    np.testing.assert_allclose(probe.predict(features), 0, atol=1e-12)


def test_helpful_errors() -> None:
    good = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"targets must have shape \(rows, outputs\), got \(3,\)\."):
        ridge_probe(good, [0, 1, 2])
    with pytest.raises(ValueError, match=r"targets must have shape \(3, 2\), a row each, got \(2, 2\)\."):
        ridge_probe(good, np.eye(2))
    with pytest.raises(ValueError, match=r"features must have shape \(rows, 4\), got \(4,\)\."):
        ridge_probe(good[0], np.eye(2))
    with pytest.raises(ValueError, match=r"features must be finite, got NaN or infinity in rows 0 to 2\."):
        ridge_probe(good * np.nan, np.eye(3))
    with pytest.raises(ValueError, match=r"A probe needs at least one row, got none\."):
        ridge_probe(good[:0], np.eye(3)[:0])
