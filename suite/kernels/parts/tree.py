"""The normaliser by a tree: each block of columns on its own, then neighbours merged until one pair
is left.
"""

from __future__ import annotations

import torch

from suite.kernels.parts.partial import Pair, merge, numerators


def tree_normaliser(x: torch.Tensor, dim: int, *, width: int = 128) -> Pair:
    """(m, d) of x along dim, which both keep at size 1, from blocks of `width` merged in about
    log2(n / width) levels.
    """
    pairs = []
    for block in torch.split(x, width, dim):
        m, e = numerators(block, dim)
        pairs.append((m, e.sum(dim, keepdim=True)))
    while len(pairs) > 1:
        pairs = [merge(pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
    return pairs[0]
