"""Base 2, the difference first, so that only differences are rounded: FlashAttention-3's lse (arXiv
2407.08608).

    softmax  e / s,    log_softmax  (z - log2 s) ln 2,    logsumexp  (m log2 e + log2 s) ln 2

    z = (x - m) log2 e,    e = exp2(z),    s = sum e,    m = max x

For the logsumexp an infinite maximum counts as 0. Beyond |m| = largest / log2 e its first product
overflows.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.base_two import LN_2, LOG2_E
from suite.kernels.parts.partial import logarithm
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax", "log_softmax", "logsumexp")
@upcast
def exp2_scaled(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    m = row_max(x, dim)
    if op == "logsumexp":
        m = m.masked_fill(m.isinf(), 0.0)
    z = (x - m) * LOG2_E
    e = torch.exp2(z)
    s = e.sum(dim, keepdim=True)
    if op == "softmax":
        return e / s
    if op == "log_softmax":
        return (z - torch.log2(s)) * LN_2
    return ((m * LOG2_E + logarithm(s, torch.log2)) * LN_2).squeeze(dim)
