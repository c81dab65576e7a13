"""Attention of one learned query over embedded tokens that know their position.

z_i = embedding(t_i) + position_i,  p = softmax(q . z_i over i),  y = sum_i p_i z_i

sinusoidal   position_i = (sin(i w_0), cos(i w_0), sin(i w_1), ...), w_k = 10000^(-2k / size) (Vaswani
             et al., 1706.03762, 3.5)
learned      position_i is a parameter
"""

from __future__ import annotations

import torch
from torch import nn

POSITIONS = ("sinusoidal", "learned")


def sinusoidal(length: int, size: int) -> torch.Tensor:
    """The sinusoidal encoding [length, size] in float64."""
    frequency = 10000.0 ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)[:, :size]


class PositionAttention(nn.Module):
    """Tokens [..., n] of integers below `vocabulary` -> [..., size], n at most `length`. positions:
    one of POSITIONS.
    """

    def __init__(self, vocabulary: int, size: int, length: int, *, positions: str = "sinusoidal") -> None:
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"positions={positions!r} is not one of {', '.join(POSITIONS)}")
        self.embedding = nn.Embedding(vocabulary, size)
        self.query = nn.Parameter(torch.ones(size) / size**0.5)
        if positions == "learned":
            self.position = nn.Parameter(torch.zeros(length, size))
        else:
            self.register_buffer("position", sinusoidal(length, size))

    def scores(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z [..., n, size] and the scores q . z_i [..., n]."""
        z = self.embedding(tokens) + self.position[: tokens.shape[-1]]
        return z, z @ self.query

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        z, score = self.scores(tokens)
        p = torch.softmax(score, -1)
        return (p[..., None] * z).sum(-2)
