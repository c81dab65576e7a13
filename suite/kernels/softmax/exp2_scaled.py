"""exp2((x_i - m) log2 e) over its sum: base 2, the difference first, so that only differences are rounded."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.base_two import LOG2_E
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax")
@upcast
def exp2_scaled(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    e = torch.exp2((x - row_max(x, dim)) * LOG2_E)
    return e / e.sum(dim, keepdim=True)
