"""Maximum and sum by blocks of columns, one rescale a block (arXiv 1805.02867, tiled), then m + log d."""

import torch

from suite.kernels import kernel
from suite.ops.parts.blocked import blocked_normaliser
from suite.ops.parts.partial import log_sum_exp
from suite.ops.parts.wide import wide


@kernel("logsumexp")
@wide
def online_blocked(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return log_sum_exp(blocked_normaliser(x, dim)).squeeze(dim)
