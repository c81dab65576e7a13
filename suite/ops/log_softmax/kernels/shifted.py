"""(x_i - m) - log sum_j exp(x_j - m), m = max x: invariant under a common shift of the logits."""

import torch

from suite.kernels import kernel
from suite.ops.parts.row_max import row_max
from suite.ops.parts.wide import wide


@kernel("log_softmax")
@wide
def shifted(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    z = x - row_max(x, dim)
    return z - torch.log(torch.exp(z).sum(dim, keepdim=True))
