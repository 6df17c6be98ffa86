"""The head of students with two towers: linear in the outer product of the towers' features."""

from __future__ import annotations

import math

import torch


class ProductHead(torch.nn.Module):
    """Linear(flattened outer product of two features), without making that product: weight (C, S1, S2), bias (C,)."""

    def __init__(self, image_dim: int, text_dim: int, num_outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(image_dim * text_dim)  # that of torch.nn.Linear
        self.weight = torch.nn.Parameter(torch.empty(num_outputs, image_dim, text_dim).uniform_(-bound, bound))
        self.bias = torch.nn.Parameter(torch.empty(num_outputs).uniform_(-bound, bound))

    def forward(self, image_BI: torch.Tensor, text_BJ: torch.Tensor) -> torch.Tensor:
        weighted_BCJ = torch.einsum("bi,cij->bcj", image_BI, self.weight)
        return torch.einsum("bcj,bj->bc", weighted_BCJ, text_BJ) + self.bias
