"""The formula of shifted.py through torch.compile (inductor): exp, sums and casts fused in one C++ or
Triton kernel.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.compiled import compiled
from suite.kernels.rows import shifted


@kernel("softmax", "log_softmax", "logsumexp", name="compiled", slow=True)
@compiled
def compiled_shifted(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    return shifted.shifted(x, dim, op=op)
