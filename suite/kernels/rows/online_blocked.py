"""The online normaliser by blocks of columns (arXiv 1805.02867, tiled): one maximum, one rescale and one
sum a block.

    m' = max(m, max of block),    d' = d exp(m - m') + sum over the block of exp(x_j - m')
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.partial import Pair, finish, finite
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax", "log_softmax", "logsumexp")
@upcast
def online_blocked(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    return finish(op, x, blocked_normaliser(x, dim), dim)


def blocked_normaliser(x: torch.Tensor, dim: int, *, width: int = 128) -> Pair:
    """(m, d) of x along dim, which both keep at size 1; the last block may be narrower than `width`."""
    m = row_max(x.narrow(dim, 0, 0), dim)
    d = torch.zeros_like(m)
    for block in torch.split(x, width, dim):
        m_new = torch.maximum(m, row_max(block, dim))
        d = d * torch.exp(m - finite(m_new)) + torch.exp(block - finite(m_new)).sum(dim, keepdim=True)
        m = m_new
    return m, d
