"""The shifted formula through torch.compile (inductor): exp, sums and casts fused in one C++ or
Triton kernel.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.compiled import compiled
from suite.kernels.parts.partial import logarithm
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp", name="compiled", slow=True)
@compiled
@upcast
def compiled_logsumexp(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m = row_max(x, dim)
    m = m.masked_fill(m.isinf(), 0.0)
    return m.squeeze(dim) + logarithm(torch.exp(x - m).sum(dim))
