"""x_i - lse(x): one subtraction, but rounding lse costs |lse| units."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast
from suite.numerics import Numerics


@kernel("log_softmax", numerics=Numerics(shift="lse"))
@upcast
def lse_subtract(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m = row_max(x, dim)
    lse = m + torch.log(torch.exp(x - m).sum(dim, keepdim=True))
    return x - lse
