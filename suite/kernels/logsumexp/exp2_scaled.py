"""(m log2 e + log2 s) ln 2, s = sum_j exp2((x_j - m) log2 e): FlashAttention-3's lse (arXiv
2407.08608), in base 2.

A maximum of -inf or inf counts as 0. Beyond |m| = largest / log2 e the first product overflows.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.base_two import LN_2, LOG2_E
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp")
@upcast
def exp2_scaled(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m = row_max(x, dim)
    m = m.masked_fill(m.isinf(), 0.0)
    s = torch.exp2((x - m) * LOG2_E).sum(dim, keepdim=True)
    log2_s = torch.log2(s.masked_fill(s == 0, 1.0)).masked_fill(
        s == 0, -torch.inf
    )  # no slope of 1 / 0 for a row of -inf
    return ((m * LOG2_E + log2_s) * LN_2).squeeze(dim)
