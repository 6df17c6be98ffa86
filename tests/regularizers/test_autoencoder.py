"""Factor transfer's autoencoder: it learns to compress, stops on validation features, and comes back frozen."""

import pytest
import torch
from torch import Tensor

from aft_ray.regularizers import FeatureEncoder, fit_encoder
from aft_ray.regularizers.autoencoder import _decoder, _reconstruction_error


def low_rank(seed: int, num_rows: int, dims: tuple[int, ...] = (8, 6)) -> Tensor:
    """Features whose blocks of ``dims`` columns follow from 2 numbers each, so that half the width loses nothing."""
    generator, maps = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    blocks = [torch.randn(num_rows, 2, generator=generator) @ torch.randn(2, dim, generator=maps) for dim in dims]
    return torch.cat(blocks, dim=1)


def test_codes_have_half_the_width_of_each_teacher_and_are_not_negative() -> None:
    encoder = FeatureEncoder([8, 5])
    codes = encoder(torch.randn(3, 13))
    assert codes.shape == (3, encoder.code_dim) == (3, 6)
    assert (codes >= 0).all()
    assert encoder.encoders[0](torch.ones(1, 8)).shape == (1, 4)


def test_fitted_codes_let_features_be_reconstructed_better_than_their_mean() -> None:
    dims = (24, 16)
    train, validation = low_rank(0, 256, dims), low_rank(1, 64, dims)
    encoder = fit_encoder(train.numpy(), validation.numpy(), dims, learning_rate=3e-3, batch_size=32, max_epochs=60)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    solution = torch.linalg.lstsq(torch.cat([encoder(train), torch.ones(256, 1)], dim=1), train).solution
    reconstructed = torch.cat([encoder(validation), torch.ones(64, 1)], dim=1) @ solution
    assert (reconstructed - validation).square().mean() < 0.05 * (train.mean(0) - validation).square().mean()


def test_same_seed_gives_the_same_encoder_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    ours, again, other = (
        fit_encoder(low_rank(0, 64), low_rank(1, 16), [8, 6], max_epochs=2, seed=seed)(low_rank(2, 4))
        for seed in (1, 1, 2)
    )
    assert torch.equal(ours, again) and not torch.equal(ours, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_stops_when_validation_no_longer_improves_and_keeps_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([3.0, 1.0, 2.0, 2.0, 2.0])  # the best is epoch 1; patience 3 ends it after epoch 4
    snapshots: list[Tensor] = []

    def error(autoencoder: torch.nn.Sequential, *_: object) -> float:
        snapshots.append(autoencoder[0][0].weight.detach().clone())  # type: ignore[index]
        return next(errors)

    monkeypatch.setattr("aft_ray.regularizers.autoencoder._reconstruction_error", error)
    encoder = fit_encoder(low_rank(0, 64), low_rank(1, 16), [14], patience=3)
    assert len(snapshots) == 5
    assert torch.equal(encoder.encoders[0][0].weight, snapshots[1])  # type: ignore[index]


def test_validation_error_is_the_mean_over_all_batches() -> None:
    encoder = FeatureEncoder([8])
    autoencoder = torch.nn.Sequential(encoder, _decoder(8))
    validation = low_rank(1, 10)[:, :8]
    expected = (autoencoder(validation) - validation).square().mean().item()
    assert _reconstruction_error(autoencoder, validation, 3, "cpu") == pytest.approx(expected, rel=1e-6)


def test_helpful_errors() -> None:
    train = low_rank(0, 8)
    with pytest.raises(ValueError, match=r"validation_features must have shape \(rows, 14\), got \(8, 13\)\."):
        fit_encoder(train, train[:, 1:], [8, 6])
    with pytest.raises(ValueError, match=r"train_features must have shape \(rows, 14\), got \(0, 14\)\."):
        fit_encoder(train[:0], train, [8, 6])
    with pytest.raises(ValueError, match=r"teacher_dims must be at least 2 to be halved, got \[13, 1\]\."):
        fit_encoder(train, train, [13, 1])
