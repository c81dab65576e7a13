"""The shifted formula through torch.compile (inductor): exp, sums and casts fused in one C++ or
Triton kernel.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.compiled import compiled
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax", name="compiled", slow=True)
@compiled
@upcast
def compiled_softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    e = torch.exp(x - row_max(x, dim))
    return e / e.sum(dim, keepdim=True)
