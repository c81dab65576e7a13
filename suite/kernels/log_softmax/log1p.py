"""(x_i - m) - log1p(sum of exp(x_j - m) without the largest), as scipy has it: log_softmax([0,
-80])[0] is -e^-80, not 0.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.log1p import sum_of_others
from suite.kernels.parts.upcast import upcast


@kernel("log_softmax")
@upcast
def log1p(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    if x.shape[dim] == 0:
        return x
    m, largest = x.max(dim, keepdim=True)
    z = x - m
    return z - torch.log1p(sum_of_others(torch.exp(z), largest, dim))
