"""exp2(fma(x_i, log2 e, -m log2 e)) over its sum: FlashAttention's exponent (arXiv 2307.08691),
with one maximum.

The product m log2 e is rounded, but it is the same for all entries: its error cancels in the
quotient, and no declaration is needed. Where it exceeds 127 in float32, at |m| = 2^31, exp2
overflows: that is the kernel's domain.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.base_two import LOG2_E, fma, rounded
from suite.kernels.parts.domains import cancelling_domain
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax", domain=cancelling_domain)
@upcast
def exp2_fma(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    c = rounded(LOG2_E, x)
    e = torch.exp2(fma(x, c, -row_max(x, dim) * c))
    return e / e.sum(dim, keepdim=True)
