"""With the maximum taken out nothing overflows, and only differences of logits are rounded.

    softmax  e / s,    log_softmax  z - log s,    logsumexp  m + log s

    z = x - m,    e = exp(z),    s = sum e,    m = max x

For the logsumexp an infinite maximum counts as 0, so that inf - inf never happens.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.partial import logarithm
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax", "log_softmax", "logsumexp")
@upcast
def shifted(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    m = row_max(x, dim)
    if op == "logsumexp":
        m = m.masked_fill(m.isinf(), 0.0)
    z = x - m
    e = torch.exp(z)
    s = e.sum(dim, keepdim=True)
    if op == "softmax":
        return e / s
    return z - torch.log(s) if op == "log_softmax" else (m + logarithm(s)).squeeze(dim)
