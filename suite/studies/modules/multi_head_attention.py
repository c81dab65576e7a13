"""Multi-head scaled dot-product attention with four projections and a LayerNorm after the last
(Vaswani et al., 1706.03762).

head_h = softmax(Q_h K_h^T / sqrt(head_size)) V_h,  y = LayerNorm(concat(head_1, ..., head_H) W_o + b_o)
"""

from __future__ import annotations

import math

import torch
from torch import nn


class MultiHeadAttention(nn.Module):
    """x [..., n, size] attends to itself or to a context [..., m, size] -> [..., n, size].

    layer_norm: whether the output is normalised, as the module that this one follows has it; the
    paper's has none.
    """

    def __init__(
        self, size: int, heads: int, *, head_size: int | None = None, layer_norm: bool = True
    ) -> None:
        super().__init__()
        if head_size is None and size % heads:
            raise ValueError(f"size={size} is not a multiple of heads={heads}; give head_size")
        self.heads = heads
        self.head_size = head_size or size // heads
        inner = heads * self.head_size
        self.query = nn.Linear(size, inner)
        self.key = nn.Linear(size, inner)
        self.value = nn.Linear(size, inner)
        self.output = nn.Linear(inner, size)
        self.norm = nn.LayerNorm(size) if layer_norm else nn.Identity()

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        context = x if context is None else context
        heads = self.weights(x, context) @ self._split(self.value(context))
        joined = heads.transpose(-3, -2).flatten(-2)
        return self.norm(self.output(joined))  # type: ignore[no-any-return]

    def weights(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """softmax(Q K^T / sqrt(head_size)), [..., heads, n, m]."""
        q, k = self._split(self.query(x)), self._split(self.key(context))
        return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(self.head_size), -1)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """[..., n, heads * head_size] -> [..., heads, n, head_size]."""
        return x.reshape(*x.shape[:-1], self.heads, self.head_size).transpose(-3, -2)
