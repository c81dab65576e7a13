"""Additive attention: as one document writes it, and as the literature has it.

AddedInput          y = x + W x: a linear layer with a residual. Nothing is weighed against anything
                    else: there is no softmax.
AdditiveAttention   e_ij = v . tanh(W q_i + U k_j),  p = softmax(e over j),  y_i = sum_j p_ij k_j
                    (Bahdanau et al., 1409.0473)
"""

from __future__ import annotations

import torch
from torch import nn


class AddedInput(nn.Module):
    """x [..., size] -> x + W x [..., size]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(x)  # type: ignore[no-any-return]


class AdditiveAttention(nn.Module):
    """Queries [..., n, size] over keys, which are the values too, [..., m, size] -> [..., n, size]."""

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(size, hidden_size, bias=False)
        self.key = nn.Linear(size, hidden_size, bias=False)
        self.energy = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.query(queries)[..., :, None, :] + self.key(keys)[..., None, :, :])
        p = torch.softmax(self.energy(hidden).squeeze(-1), -1)
        return p @ keys
