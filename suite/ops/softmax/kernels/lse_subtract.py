"""exp(x_i - lse(x)): no division, but rounding lse costs |lse| units (Blanchard, Higham and Higham 2021, section 4)."""

import torch

from suite.kernels import kernel
from suite.numerics import Numerics
from suite.ops.parts.row_max import row_max
from suite.ops.parts.wide import wide


@kernel("softmax", numerics=Numerics(shift="lse"))
@wide
def lse_subtract(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m = row_max(x, dim)
    lse = m + torch.log(torch.exp(x - m).sum(dim, keepdim=True))
    return torch.exp(x - lse)
