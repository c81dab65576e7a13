"""m + log of a compensated sum of exp(x_j - m)."""

import torch

from suite.kernels import kernel
from suite.ops.parts.compensated import compensated_sum
from suite.ops.parts.partial import log_sum_exp, numerators
from suite.ops.parts.wide import wide


@kernel("logsumexp")
@wide
def kahan(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m, e = numerators(x, dim)
    return log_sum_exp((m, compensated_sum(e, dim))).squeeze(dim)
