"""((x_i - m) log2 e - log2 s) ln 2, s = sum_j exp2((x_j - m) log2 e): base 2 between two rounded
constants.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.base_two import LN_2, LOG2_E
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("log_softmax")
@upcast
def exp2_scaled(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    z = (x - row_max(x, dim)) * LOG2_E
    return (z - torch.log2(torch.exp2(z).sum(dim, keepdim=True))) * LN_2
