"""Softmax of an input that softmax attention has weighted first ("attention-optimised softmax"), in
two readings.

elementwise   e_i = q^T W x_i,  a = softmax(e),  x'_i = a_i x_i,  y = softmax(x') over the elements i
pooled        the same weights from linear layers,  y = softmax over the features of sum_i a_i x_i

The promise that they improve the gradient and the stability of softmax is measured in suite/studies/depth/.
"""

from __future__ import annotations

import torch
from torch import nn


class AttentionSoftmax(nn.Module):
    """The elementwise reading. x [..., n, features] -> [..., n, features], each feature a
    distribution over the n elements.

    With one feature the elements are logits and the score is w x_i, w = q^T W a number.
    """

    def __init__(self, features: int, query_size: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.ones(query_size))
        self.weight = nn.Parameter(torch.ones(query_size, features) / query_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x @ (self.query @ self.weight)
        a = torch.softmax(score, -1)
        return torch.softmax(a[..., None] * x, -2)


class PooledAttentionSoftmax(nn.Module):
    """The pooled reading. x [..., positions, input_size] -> [..., input_size], a distribution over
    the features.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(input_size, hidden_size)
        self.energy = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.softmax(self.energy(self.query(x)), -2)
        return torch.softmax((a * x).sum(-2), -1)
