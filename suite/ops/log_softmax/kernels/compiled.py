"""The shifted formula through torch.compile (inductor): exp, sums and casts fused in one C++ or Triton kernel."""

import torch

from suite.kernels import kernel
from suite.ops.parts.compiled import compiled
from suite.ops.parts.row_max import row_max
from suite.ops.parts.wide import wide


@kernel("log_softmax", name="compiled", slow=True)
@compiled
@wide
def compiled_log_softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    z = x - row_max(x, dim)
    return z - torch.log(torch.exp(z).sum(dim, keepdim=True))
