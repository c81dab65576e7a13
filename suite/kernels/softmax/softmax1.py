"""exp(x_i - m) / (exp(-m) + sum_j exp(x_j - m)), m = max(0, max x): the exponential of an extra
logit 0 in the sum.

Miller, "Attention is off by one" (2023): a row may attend to nothing. The 1 is shifted like every
other term; left as 1, it would count exp(m) times. A row of -inf gives zeros. With off_by_one=False
it is the ordinary softmax.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax")
@upcast
def softmax1(
    x: torch.Tensor, dim: int = -1, *, off_by_one: bool = False, temperature: float = 1.0
) -> torch.Tensor:
    m = row_max(x, dim)
    m = m.clamp(min=0.0) if off_by_one else m
    e = torch.exp((x - m) / temperature)
    s = e.sum(dim, keepdim=True)
    return e / (torch.exp(-m / temperature) + s if off_by_one else s)
