"""The head of students with two towers: a linear layer on the outer product of their features."""

from __future__ import annotations

import math

import torch


class ProductHead(torch.nn.Module):
    """A linear layer on the flattened outer product of two features, which is never made: weight (C, S1, S2), bias (C,)."""

    def __init__(self, image_dim: int, text_dim: int, num_outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(image_dim * text_dim)  # as in torch.nn.Linear
        self.weight = torch.nn.Parameter(torch.empty(num_outputs, image_dim, text_dim).uniform_(-bound, bound))
        self.bias = torch.nn.Parameter(torch.empty(num_outputs).uniform_(-bound, bound))

    def forward(self, image_BI: torch.Tensor, text_BJ: torch.Tensor) -> torch.Tensor:
        weighted_BCJ = torch.einsum("bi,cij->bcj", image_BI, self.weight)
        return torch.einsum("bcj,bj->bc", weighted_BCJ, text_BJ) + self.bias
