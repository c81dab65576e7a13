"""The online normaliser of Milakov and Gimelshein (arXiv 1805.02867, algorithm 3, lines 1 to 6)."""

from __future__ import annotations

import torch

from suite.kernels.parts.row_max import row_max

LONGEST = 8192


def online_normaliser(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, d): the maximum of x along dim and d = sum exp(x - m), in one pass; both keep the dim at size 1.

    m_j = max(m_{j-1}, x_j),    d_j = d_{j-1} exp(m_{j-1} - m_j) + exp(x_j - m_j)

    Computes in x's dtype. While every entry so far is -inf, m_j - m_j would be NaN: m_j counts as 0 there.
    """
    if x.shape[dim] > LONGEST:
        raise NotImplementedError(f"takes rows of at most {LONGEST} entries: each is a step of Python")
    m = row_max(x.narrow(dim, 0, 0), dim)
    d = torch.zeros_like(m)
    for x_j in torch.split(x, 1, dim) if x.shape[dim] else ():  # split makes one empty piece of an empty row
        m_new = torch.maximum(m, x_j.detach())  # as in row_max
        m_safe = m_new.masked_fill(m_new == -torch.inf, 0.0)
        d = d * torch.exp(m - m_safe) + torch.exp(x_j - m_safe)
        m = m_new
    return m, d
