"""(x_i - m) - log sum_j exp(x_j - m), m = max x: invariant under a common shift of the logits."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("log_softmax")
@upcast
def shifted(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    z = x - row_max(x, dim)
    return z - torch.log(torch.exp(z).sum(dim, keepdim=True))
