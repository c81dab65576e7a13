"""exp(x_i - m) over a compensated sum: the denominator is right to a rounding at any length."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.compensated import compensated_sum
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("softmax")
@upcast
def kahan(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    e = torch.exp(x - row_max(x, dim))
    return e / compensated_sum(e, dim)
