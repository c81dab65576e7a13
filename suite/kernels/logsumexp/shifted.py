"""m + log sum_j exp(x_j - m), m = max x; a maximum of -inf or inf counts as 0, so that inf - inf
never happens.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.partial import logarithm
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp")
@upcast
def shifted(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m = row_max(x, dim)
    m = m.masked_fill(m.isinf(), 0.0)
    return m.squeeze(dim) + logarithm(torch.exp(x - m).sum(dim))
