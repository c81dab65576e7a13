"""A stack of self-attention layers with or without residuals, dropout, and LayerNorm in one of the
places it is put.

norm      layer, f = multi-head attention          without residual
none      x + f(x)                                 f(x)
output    x + LayerNorm(f(x))                      LayerNorm(f(x))
before    x + f(LayerNorm(x))    ("pre-LN")        f(LayerNorm(x))
after     LayerNorm(x + f(x))    ("post-LN")       LayerNorm(f(x)), the same as output

The names pre-LN and post-LN are those of Xiong et al., arXiv 2002.04745. There is no feed-forward
part: what is studied is attention.
"""

from __future__ import annotations

import torch
from torch import nn

from suite.studies.modules.multi_head_attention import MultiHeadAttention

NORMS = ("none", "output", "before", "after")


class TransformerLayer(nn.Module):
    """One layer, x [..., n, size] -> [..., n, size]. dropout acts on what is added, in training only."""

    def __init__(
        self, size: int, heads: int, *, residual: bool = True, norm: str = "output", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} is not one of {', '.join(NORMS)}")
        self.residual = residual
        self.attention = MultiHeadAttention(size, heads, layer_norm=norm == "output")
        self.before = nn.LayerNorm(size) if norm == "before" else nn.Identity()
        self.after = nn.LayerNorm(size) if norm == "after" else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.dropout(self.attention(self.before(x)))
        return self.after(x + y if self.residual else y)  # type: ignore[no-any-return]


class TransformerStack(nn.Module):
    """Layers one after another, x [..., n, size] -> [..., n, size]."""

    def __init__(
        self,
        layers: int,
        size: int,
        heads: int,
        *,
        residual: bool = True,
        norm: str = "output",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(size, heads, residual=residual, norm=norm, dropout=dropout)
            for _ in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.states(x)[-1]

    def states(self, x: torch.Tensor) -> list[torch.Tensor]:
        """x and the output of every layer."""
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return found
