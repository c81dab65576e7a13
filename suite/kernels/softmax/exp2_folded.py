"""exp2(x_i log2 e - m log2 e) over its sum, each product rounded: FlashAttention's exponent where
nothing fuses it.

The products are rounded by up to |x_i| u and |m| u, so the exponent of a row at an offset is wrong
by as much, entry by entry, although its maximum never moves: shift="folded" allows for 4 |m| u, and
2 (|m| + D_i) u is the worst.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.base_two import LOG2_E
from suite.kernels.parts.domains import product_domain
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast
from suite.numerics import Numerics


@kernel("softmax", numerics=Numerics(shift="folded"), domain=product_domain)
@upcast
def exp2_folded(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    e = torch.exp2(x * LOG2_E - row_max(x, dim) * LOG2_E)
    return e / e.sum(dim, keepdim=True)
