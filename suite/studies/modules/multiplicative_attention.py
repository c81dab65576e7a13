"""Multiplicative attention: as one document writes it, and as the literature has it.

ScaledInput               y = x * w, entry by entry, w learned: a gain. Nothing is weighed against
                          anything else.
MultiplicativeAttention   e_ij = q_i . W k_j,  p = softmax(e over j),  y_i = sum_j p_ij k_j (Luong et
                          al., 1508.04025, general)
"""

from __future__ import annotations

import torch
from torch import nn


class ScaledInput(nn.Module):
    """x [..., size] -> x * w [..., size]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class MultiplicativeAttention(nn.Module):
    """Queries [..., n, size] over keys, which are the values too, [..., m, size] -> [..., n, size]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.key = nn.Linear(size, size, bias=False)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(queries @ self.key(keys).transpose(-2, -1), -1)
        return p @ keys
