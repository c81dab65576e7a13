"""Blocks of a row with maxima and exponentials of their own, merged at the end, through
torch.compile (inductor).

As in split.py no entry is read again, so each costs one exp, where an online form with a second
pass over x takes two. The width of a block is a constant of the graph, without which its loops
would not be vectorised.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.compiled import compiled
from suite.kernels.parts.partial import finite, numerators
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast

WIDTH = 512


@kernel("softmax", slow=True)
def online_compiled(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    if x.numel() == 0:
        return torch.empty_like(x)
    moved = x.movedim(dim, -1)
    length = moved.shape[-1]
    rows = moved.reshape(-1, length)
    if length % WIDTH:
        rows = torch.nn.functional.pad(rows, (0, -length % WIDTH), value=-torch.inf)
    blocks = rows.view(len(rows), -1, WIDTH)
    torch._dynamo.mark_static(blocks, 2)
    result = of_blocks(blocks, -1).view(rows.shape)[:, :length]
    return result.reshape(moved.shape).movedim(-1, dim)


@compiled
@upcast
def of_blocks(blocks: torch.Tensor, dim: int) -> torch.Tensor:
    """softmax of rows as [rows, blocks, WIDTH], over the last two dims."""
    m_k, e_k = numerators(blocks, dim)
    scale = torch.exp(m_k - finite(row_max(m_k, -2)))
    d = (e_k.sum(dim, keepdim=True) * scale).sum(-2, keepdim=True)
    return e_k * (scale / d)
