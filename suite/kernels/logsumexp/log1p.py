"""m + log1p(sum of exp(x_j - m) without the largest): Blanchard, Higham and Higham 2021, theorem 4.2."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.log1p import sum_of_others
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp")
@upcast
def log1p(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    if x.shape[dim] == 0:
        return row_max(x, dim).squeeze(dim)
    m, largest = x.max(dim, keepdim=True)
    m = m.masked_fill(m == -torch.inf, -torch.inf)  # which cuts the gradient of a row of -inf: it is 0
    e = torch.exp(x - m.masked_fill(m.isinf(), 0.0))
    return (m + torch.log1p(sum_of_others(e, largest, dim))).squeeze(dim)
