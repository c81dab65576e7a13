"""log1p of the sum without its largest term, 1 (Blanchard, Higham and Higham 2021, theorem 4.2; scipy).

    log_softmax  z - log1p(s),    logsumexp  m + log1p(s),    s = sum exp(z) without the largest

    z = x - m,    m = max x

log1p puts the 1 back unrounded: log_softmax([0, -80])[0] is -e^-80, not 0.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("log_softmax", "logsumexp")
@upcast
def log1p(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    if x.shape[dim] == 0:
        return x if op == "log_softmax" else row_max(x, dim).squeeze(dim)
    m, largest = x.max(dim, keepdim=True)
    if op == "log_softmax":
        z = x - m
        return z - torch.log1p(sum_of_others(torch.exp(z), largest, dim))
    m = m.masked_fill(m == -torch.inf, -torch.inf)  # which cuts the gradient of a row of -inf: it is 0
    e = torch.exp(x - m.masked_fill(m.isinf(), 0.0))
    return (m + torch.log1p(sum_of_others(e, largest, dim))).squeeze(dim)


def sum_of_others(e: torch.Tensor, largest: torch.Tensor, dim: int) -> torch.Tensor:
    """The sum of e along dim without the entry at the index `largest`."""
    return e.scatter(dim, largest, 0.0).sum(dim, keepdim=True)
