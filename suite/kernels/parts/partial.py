"""Pairs (m, d) of parts of a row: m = max x and d = sum exp(x - m), merged in any order (arXiv
1805.02867, section 3.1).

    (m_1, d_1) + (m_2, d_2) = (m, d_1 exp(m_1 - m) + d_2 exp(m_2 - m)),    m = max(m_1, m_2)

A part of nothing but -inf is (-inf, 0): where m = -inf, it counts as 0 in every difference, or -inf
+ inf would be NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from suite.kernels.parts.row_max import row_max

Pair = tuple[torch.Tensor, torch.Tensor]


def numerators(x: torch.Tensor, dim: int) -> Pair:
    """(m, exp(x - m)) of one part of a row; m keeps the dim at size 1."""
    m = row_max(x, dim)
    return m, torch.exp(x - finite(m))


def merge(pairs: Sequence[Pair]) -> Pair:
    """(m, d) of the parts together."""
    m = torch.stack([m_k for m_k, _ in pairs]).amax(0)
    return m, torch.stack([d_k * torch.exp(m_k - finite(m)) for m_k, d_k in pairs]).sum(0)


def log_sum_exp(pair: Pair) -> torch.Tensor:
    """m + log d; a row with +inf has m = inf and a NaN in d, and is inf."""
    m, d = pair
    return torch.where(m == torch.inf, m, m + logarithm(d))


def finish(op: str, x: torch.Tensor, pair: Pair, dim: int) -> torch.Tensor:
    """softmax, log_softmax or logsumexp of x along dim from the pair (m, d) of each row."""
    m, d = pair
    if op == "softmax":
        return torch.exp(x - m) / d
    return (x - m) - torch.log(d) if op == "log_softmax" else log_sum_exp(pair).squeeze(dim)


def logarithm(d: torch.Tensor, log: Callable[[torch.Tensor], torch.Tensor] = torch.log) -> torch.Tensor:
    """log d. The gradient at d = 0, the sum of a row of -inf, is 0: its slope there, 1 / 0, would
    be NaN times 0.
    """
    return log(d.masked_fill(d == 0, 1.0)).masked_fill(d == 0, -torch.inf)


def finite(m: torch.Tensor) -> torch.Tensor:
    """m with 0 for -inf."""
    return m.masked_fill(m == -torch.inf, 0.0)
