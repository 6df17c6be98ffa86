"""LogME against values of the authors' code, against textbook Bayesian regression, and as a sum over shards."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aft_ray.regularizers import LogMEStatistics, btune_options, log_me
from tests.helpers import DATA

GOLDEN = np.load(DATA / "reference_logme.npz")


def samples(seed: int, num_samples: int = 60, feature_dim: int = 8) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, num_samples)
    labels[:3] = range(3)
    return generator.normal(size=(num_samples, feature_dim)) + labels[:, None] * 0.5, labels


@pytest.mark.parametrize("case", ["case0", "case1", "case2"])
def test_score_and_weights_equal_the_reference(case: str) -> None:
    score, weights_CD = log_me(GOLDEN[f"{case}/features"], GOLDEN[f"{case}/labels"])
    expected_CD = GOLDEN[f"{case}/weights"]
    assert score == pytest.approx(float(GOLDEN[f"{case}/score"]), rel=1e-9)
    np.testing.assert_allclose(weights_CD, expected_CD, rtol=1e-9, atol=1e-9 * np.abs(expected_CD).max())
    assert weights_CD.dtype == np.float64


def test_score_is_the_log_density_of_the_labels_under_the_fitted_model() -> None:
    """With y ~ N(0, I / beta + X X' / alpha) the evidence is a plain Gaussian density: no algebra shared with the code."""
    features_ND, labels_N = samples(0)
    num_samples, feature_dim = features_ND.shape
    scores, weights = [], []
    for label in range(3):
        y_N = (labels_N == label).astype(float)
        alpha = beta = 1.0
        for _ in range(11):
            started = alpha / beta
            posterior_DD = alpha * np.eye(feature_dim) + beta * features_ND.T @ features_ND
            mean_D = beta * np.linalg.solve(posterior_DD, features_ND.T @ y_N)
            gamma = feature_dim - alpha * np.trace(np.linalg.inv(posterior_DD))
            alpha = gamma / (mean_D @ mean_D + 1e-5)
            beta = (num_samples - gamma) / (np.sum((y_N - features_ND @ mean_D) ** 2) + 1e-5)
            if abs(alpha / beta - started) / started <= 1e-3:
                break
        covariance_NN = np.eye(num_samples) / beta + features_ND @ features_ND.T / alpha
        log_density = -0.5 * (y_N @ np.linalg.solve(covariance_NN, y_N))
        log_density -= 0.5 * (np.linalg.slogdet(covariance_NN)[1] + num_samples * np.log(2 * np.pi))
        scores.append(log_density / num_samples)
        weights.append(mean_D)
    score, weights_CD = log_me(features_ND, labels_N)
    assert score == pytest.approx(np.mean(scores), rel=1e-4)  # the iteration stops at a relative change of 1e-3
    np.testing.assert_allclose(weights_CD, weights, rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 60), max_size=4))
def test_statistics_of_shards_add_up_to_those_of_all_samples(seed: int, cuts: list[int]) -> None:
    features_ND, labels_N = samples(seed)
    total = LogMEStatistics(8, 3)
    for features_nD, labels_n in zip(
        np.split(features_ND, sorted(cuts)), np.split(labels_N, sorted(cuts)), strict=True
    ):
        shard = LogMEStatistics(8, 3)
        shard.update(features_nD, labels_n)
        total = total + shard
    score, weights_CD = total.solve()
    expected_score, expected_CD = log_me(features_ND, labels_N)
    assert score == pytest.approx(expected_score, rel=1e-9)
    np.testing.assert_allclose(weights_CD, expected_CD, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("num_samples", [3, 8, 30])
def test_few_samples_are_solved_by_the_smaller_matrix(num_samples: int) -> None:
    features_ND, labels_N = samples(7, num_samples, feature_dim=30)
    score, weights_CD = log_me(features_ND, labels_N)
    summed = LogMEStatistics(30, 3)
    summed.update(features_ND, labels_N)
    summed.rows_nD, summed.gram_DD = [], features_ND.T @ features_ND
    expected_score, expected_CD = summed.solve()
    assert score == pytest.approx(expected_score, rel=1e-9)
    np.testing.assert_allclose(weights_CD, expected_CD, rtol=1e-9, atol=1e-10)


def test_few_samples_of_many_features_need_no_matrix_of_features() -> None:
    features_ND, labels_N = samples(8, num_samples=20, feature_dim=400_000)  # whose X'X would have 1.3 terabytes
    statistics = LogMEStatistics(400_000, 3)
    statistics.update(features_ND, labels_N)
    assert np.isfinite(statistics.solve()[0])
    part = statistics.of(np.arange(8)).solve()[0]  # of fewer features than samples
    assert part == pytest.approx(log_me(features_ND[:, :8], labels_N)[0], rel=1e-9)


def test_chunks_of_an_update_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features_ND, labels_N = samples(1)
    whole = log_me(features_ND, labels_N)
    monkeypatch.setattr("aft_ray.regularizers.logme.CHUNK_ROWS", 7)
    chunked = log_me(features_ND, labels_N)
    assert chunked[0] == pytest.approx(whole[0], rel=1e-12)
    np.testing.assert_allclose(chunked[1], whole[1], rtol=1e-9)


def test_unlabelled_rows_are_ignored() -> None:
    features_ND, labels_N = samples(2)
    padded_ND, padded_N = np.vstack([features_ND, np.full((5, 8), 1e3)]), np.append(labels_N, [-1] * 5)
    assert log_me(padded_ND, padded_N)[0] == log_me(features_ND, labels_N)[0]


def test_classes_without_samples_do_not_count() -> None:
    features_ND, labels_N = samples(3)
    statistics = LogMEStatistics(8, 5)
    statistics.update(features_ND, labels_N)
    score, weights_CD = statistics.solve()
    assert score == log_me(features_ND, labels_N)[0]
    assert weights_CD.shape == (5, 8) and not weights_CD[3:].any()


def test_features_that_tell_the_classes_apart_score_higher() -> None:
    features_ND, labels_N = samples(4)
    noise_ND = np.random.default_rng(4).normal(size=features_ND.shape)
    assert log_me(features_ND, labels_N)[0] > log_me(noise_ND, labels_N)[0]


def test_half_precision_features_are_summed_in_float64() -> None:
    features_ND, labels_N = samples(5)
    half_ND = features_ND.astype(np.float16)
    assert log_me(half_ND, labels_N)[0] == log_me(half_ND.astype(np.float64), labels_N)[0]


def test_btune_options_hold_the_solutions() -> None:
    features_ND, labels_N = samples(6)
    statistics = []
    for columns in (slice(0, 8), slice(0, 3), slice(3, 8)):
        statistics.append(LogMEStatistics(features_ND[:, columns].shape[1], 3))
        statistics[-1].update(features_ND[:, columns], labels_N)
    options = btune_options(statistics[0], statistics[1:])
    np.testing.assert_array_equal(options["student_weights"], log_me(features_ND, labels_N)[1])
    assert [weights.shape for weights in options["teacher_weights"]] == [(3, 3), (3, 5)]
    assert options["scores"] == [log_me(features_ND[:, :3], labels_N)[0], log_me(features_ND[:, 3:], labels_N)[0]]


def test_helpful_errors() -> None:
    statistics = LogMEStatistics(4, 3)
    good = np.ones((2, 4))
    with pytest.raises(ValueError, match=r"features must have shape \(rows, 4\), got \(2, 5\)\."):
        statistics.update(np.ones((2, 5)), [0, 1])
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), one per row, got \(3,\)\."):
        statistics.update(good, [0, 1, 2])
    with pytest.raises(ValueError, match=r"labels must be -1 to 2, got 0 to 3\."):
        statistics.update(good, [0, 3])
    with pytest.raises(ValueError, match=r"features must be finite, got NaN or infinity in rows 0 to 1\."):
        statistics.update(good * np.nan, [0, 1])
    with pytest.raises(ValueError, match="LogME needs at least one labelled sample, got none."):
        statistics.solve()
    with pytest.raises(ValueError, match=r"same \(classes, width\) can be added, got \(3, 4\) and \(2, 4\)\."):
        statistics + LogMEStatistics(4, 2)
    with pytest.raises(ValueError, match=r"features must have shape \(rows, width\) with at least one row"):
        log_me(np.ones((0, 4)), [])
