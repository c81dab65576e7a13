"""exp(x_i - lse(x)), or x_i - lse(x): no division, but rounding lse costs |lse| units (Blanchard, Higham
and Higham 2021, section 4).
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast
from suite.numerics import Numerics


@kernel("softmax", "log_softmax", numerics=Numerics(shift="lse"))
@upcast
def lse_subtract(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    m = row_max(x, dim)
    lse = m + torch.log(torch.exp(x - m).sum(dim, keepdim=True))
    return torch.exp(x - lse) if op == "softmax" else x - lse
