"""Pools the features of a text's tokens into one vector.

B samples, L tokens, H features; `mask_BL` is 1 for tokens and 0 for padding, which is on the right.
"""

from __future__ import annotations

import torch


def pool_tokens(hidden_BLH: torch.Tensor, mask_BL: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B, H): the first token (`cls`), the last token before padding (`last`), or the mean of all tokens (`mean`)."""
    if pooling == "cls":
        return hidden_BLH[:, 0]
    if pooling == "last":
        return token_at(hidden_BLH, mask_BL.sum(1) - 1)
    weights_BL1 = mask_BL.unsqueeze(-1).float()
    return (hidden_BLH.float() * weights_BL1).sum(1) / weights_BL1.sum(1)


def token_at(hidden_BLH: torch.Tensor, positions_B: torch.Tensor) -> torch.Tensor:
    return hidden_BLH[torch.arange(len(hidden_BLH), device=hidden_BLH.device), positions_B]
