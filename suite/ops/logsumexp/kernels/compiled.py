"""The shifted formula through torch.compile (inductor): exp, sums and casts fused in one C++ or Triton kernel."""

import torch

from suite.kernels import kernel
from suite.ops.parts.compiled import compiled
from suite.ops.parts.partial import logarithm
from suite.ops.parts.row_max import row_max
from suite.ops.parts.wide import wide


@kernel("logsumexp", name="compiled", slow=True)
@compiled
@wide
def compiled_logsumexp(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m = row_max(x, dim)
    m = m.masked_fill(m.isinf(), 0.0)
    return m.squeeze(dim) + logarithm(torch.exp(x - m).sum(dim))
