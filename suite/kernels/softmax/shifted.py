"""exp(x_i - m) / sum_j exp(x_j - m), m = max x: nothing overflows, and only differences of logits
are rounded.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax")
@upcast
def shifted(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    e = torch.exp(x - row_max(x, dim))
    return e / e.sum(dim, keepdim=True)
