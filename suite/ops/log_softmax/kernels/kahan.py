"""(x_i - m) - log of a compensated sum of exp(x_j - m)."""

import torch

from suite.kernels import kernel
from suite.ops.parts.compensated import compensated_sum
from suite.ops.parts.row_max import row_max
from suite.ops.parts.wide import wide


@kernel("log_softmax")
@wide
def kahan(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    z = x - row_max(x, dim)
    return z - torch.log(compensated_sum(torch.exp(z), dim))
