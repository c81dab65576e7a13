"""A row split into a fixed number of parts, which meet once, at the end: Flash-Decoding, or a
vocabulary over devices.
"""

from __future__ import annotations

import torch

from suite.kernels.parts.partial import Pair, merge, numerators

PARTS = 8


def split_row(x: torch.Tensor, dim: int, *, parts: int = PARTS) -> tuple[list[Pair], Pair]:
    """([(m_k, exp(x - m_k)) of each part], (m, d) of the row). A part is empty where the row has
    fewer entries.
    """
    own = [numerators(part, dim) for part in torch.tensor_split(x, parts, dim)]
    return own, merge([(m_k, e_k.sum(dim, keepdim=True)) for m_k, e_k in own])
