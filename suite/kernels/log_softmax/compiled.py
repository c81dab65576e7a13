"""The shifted formula through torch.compile (inductor): exp, sums and casts fused in one C++ or
Triton kernel.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.compiled import compiled
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("log_softmax", name="compiled", slow=True)
@compiled
@upcast
def compiled_log_softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    z = x - row_max(x, dim)
    return z - torch.log(torch.exp(z).sum(dim, keepdim=True))
