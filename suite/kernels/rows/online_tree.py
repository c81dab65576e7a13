"""(m, d) of each block of columns on its own, then neighbours merged until one pair is left (arXiv
1805.02867, section 3.1).
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.partial import Pair, finish, merge, numerators
from suite.kernels.parts.upcast import upcast


@kernel("softmax", "log_softmax", "logsumexp")
@upcast
def online_tree(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    return finish(op, x, tree_normaliser(x, dim), dim)


def tree_normaliser(x: torch.Tensor, dim: int, *, width: int = 128) -> Pair:
    """(m, d) of x along dim, which both keep at size 1: about log2(n / width) levels."""
    pairs = []
    for block in torch.split(x, width, dim):
        m, e = numerators(block, dim)
        pairs.append((m, e.sum(dim, keepdim=True)))
    while len(pairs) > 1:
        pairs = [merge(pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
    return pairs[0]
