"""The autoencoder of factor transfer: compresses each teacher's features to half their width before they are compared."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss


class FeatureEncoder(nn.Module):
    """Teacher features (b, T) to codes (b, sum of T_k // 2), every teacher by its own encoder; frozen."""

    def __init__(self, teacher_dims: Sequence[int]) -> None:
        super().__init__()
        self.teacher_dims = tuple(teacher_dims)
        self.code_dims = tuple(dim // 2 for dim in teacher_dims)
        self.code_dim = sum(self.code_dims)
        self.encoders = nn.ModuleList(map(_encoder, self.teacher_dims))
        self.requires_grad_(False)

    def forward(self, teacher_features: Tensor) -> Tensor:
        parts = teacher_features.split(self.teacher_dims, dim=1)
        return torch.cat([encode(part) for encode, part in zip(self.encoders, parts, strict=True)], dim=1)


def fit_encoder(
    train_features: np.ndarray | Tensor,
    validation_features: np.ndarray | Tensor,
    teacher_dims: Sequence[int],
    *,
    learning_rate: float = 3e-4,
    batch_size: int = 1024,
    max_epochs: int = 500,
    patience: int = 10,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> FeatureEncoder:
    """The encoders of one autoencoder per teacher, each with the weights of its best epoch on ``validation_features``.

    Features are (N, T) and (M, T), floating, on any device; batches are moved to ``device``. Training minimises the squared
    reconstruction error with Adam and stops ``patience`` epochs after the best validation error, at ``max_epochs`` at the
    latest. ``seed`` fixes initial weights and batch order without touching the global generator.
    """
    train, validation = torch.as_tensor(train_features), torch.as_tensor(validation_features)
    for name, features in (("train_features", train), ("validation_features", validation)):
        if features.dim() != 2 or features.shape[0] == 0 or features.shape[1] != sum(teacher_dims):
            raise ValueError(f"{name} must have shape (rows, {sum(teacher_dims)}), got {tuple(features.shape)}.")
    if min(teacher_dims) < 2:
        raise ValueError(f"teacher_dims must be at least 2 to be halved, got {list(teacher_dims)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fitted = FeatureEncoder(teacher_dims)
        decoders = [_decoder(dim) for dim in teacher_dims]
    order = torch.Generator().manual_seed(seed)
    splits = zip(train.split(fitted.teacher_dims, dim=1), validation.split(fitted.teacher_dims, dim=1), strict=True)
    for encoder, decoder, (train_part, validation_part) in zip(fitted.encoders, decoders, splits, strict=True):
        autoencoder = nn.Sequential(encoder, decoder).requires_grad_(True).to(device)
        optimizer = torch.optim.Adam(autoencoder.parameters(), lr=learning_rate)
        best_error, best_epoch, best_weights = float("inf"), 0, copy.deepcopy(encoder.state_dict())
        for epoch in range(max_epochs):
            for index in torch.randperm(len(train_part), generator=order).split(batch_size):
                batch = train_part[index].to(device, torch.float32)
                optimizer.zero_grad()
                mse_loss(autoencoder(batch), batch).backward()
                optimizer.step()
            error = _reconstruction_error(autoencoder, validation_part, batch_size, device)
            if error < best_error:
                best_error, best_epoch, best_weights = error, epoch, copy.deepcopy(encoder.state_dict())
            elif epoch - best_epoch >= patience:
                break
        encoder.load_state_dict(best_weights)
    return fitted.requires_grad_(False)


@torch.no_grad()
def _reconstruction_error(
    autoencoder: nn.Module, features: Tensor, batch_size: int, device: torch.device | str
) -> float:
    total = 0.0
    for batch in features.split(batch_size):
        batch = batch.to(device, torch.float32)
        total += mse_loss(autoencoder(batch), batch, reduction="sum").item()
    return total / features.numel()


def _encoder(dim: int) -> nn.Sequential:
    code = dim // 2
    layers = (nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, code), nn.ReLU(), nn.Linear(code, code), nn.ReLU())
    return nn.Sequential(*layers)


def _decoder(dim: int) -> nn.Sequential:
    code = dim // 2
    return nn.Sequential(nn.Linear(code, code), nn.ReLU(), nn.Linear(code, dim), nn.ReLU(), nn.Linear(dim, dim))
